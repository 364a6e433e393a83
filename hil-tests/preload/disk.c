/* A disk that forgets: preloaded into a node of the lab, it keeps of every file below a folder what a write replaced, until the
 * file is synced. Applied backwards after a kill -9 (nemesis/power.rs), the file is what a disk holds that lost its power: everything
 * that was synced, and of the rest as much as is wanted.
 *
 *   EHE_LAB_DISK       the folder, absolute
 *   EHE_LAB_UNDO       where the undo logs go: one a file, called by its inode, so that it follows a rename
 *   EHE_LAB_DISK_SLOW  as long as there is such a file: a sync takes 30 ms longer, so that a kill meets one under way
 *   EHE_LAB_DISK_LIES  as long as there is such a file: syncs do nothing and say that they did
 *
 * An undo record: offset, bytes replaced, size of the file before (three u64, native), then the bytes replaced. It is written before the
 * write itself. Names (create, rename, remove) are taken as durable at once; what is mapped into memory is not seen, and redb maps
 * nothing. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define FDS 8192

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static const char *disk, *undo, *slow, *lies;
/* Undo log of each descriptor, plus one; 0: not ours. */
static int undo_of[FDS];

static int (*real_open)(const char *, int, ...);
static int (*real_openat)(int, const char *, int, ...);
static int (*real_close)(int);
static ssize_t (*real_write)(int, const void *, size_t);
static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static int (*real_ftruncate)(int, off_t);
static int (*real_fsync)(int);
static int (*real_fdatasync)(int);

static void find(void) {
    real_open = dlsym(RTLD_NEXT, "open64");
    real_openat = dlsym(RTLD_NEXT, "openat64");
    real_close = dlsym(RTLD_NEXT, "close");
    real_write = dlsym(RTLD_NEXT, "write");
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_ftruncate = dlsym(RTLD_NEXT, "ftruncate64");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    disk = getenv("EHE_LAB_DISK");
    undo = getenv("EHE_LAB_UNDO");
    slow = getenv("EHE_LAB_DISK_SLOW");
    lies = getenv("EHE_LAB_DISK_LIES");
}

static void ready(void) { pthread_once(&once, find); }

/* A lab that cannot keep its books must not go on as if nothing were. */
static void give_up(const char *what) {
    perror(what);
    abort();
}

static int ours(int fd) { return fd >= 0 && fd < FDS && undo_of[fd] > 0; }

static void opened(int fd, int flags) {
    char link[64], path[4096];
    struct stat st;
    if (fd < 0 || fd >= FDS || disk == NULL || undo == NULL || (flags & O_ACCMODE) == O_RDONLY) return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    size_t prefix = strlen(disk);
    if (strncmp(path, disk, prefix) != 0 || path[prefix] != '/') return;
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode)) return;
    snprintf(path, sizeof path, "%s/%llu", undo, (unsigned long long)st.st_ino);
    int log = real_open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0) give_up("the undo log");
    /* Another file had this inode before. */
    if (((flags & O_TRUNC) || st.st_size == 0) && real_ftruncate(log, 0) != 0) give_up("the undo log");
    undo_of[fd] = log + 1;
}

static void all(int fd, const void *bytes, size_t count) {
    const char *at = bytes;
    while (count > 0) {
        ssize_t done = real_write(fd, at, count);
        if (done < 0 && errno == EINTR) continue;
        if (done <= 0) give_up("the undo log");
        at += done;
        count -= (size_t)done;
    }
}

/* Keeps [from, from + count) of the file, as far as it has it. */
static void keep(int fd, uint64_t from, uint64_t count) {
    struct stat st;
    char link[64];
    if (fstat(fd, &st) != 0) give_up("fstat");
    uint64_t size = (uint64_t)st.st_size, have = from >= size ? 0 : size - from;
    if (have > count) have = count;
    char *record = malloc(24 + have);
    if (record == NULL) give_up("malloc");
    uint64_t head[3] = {from, have, size};
    memcpy(record, head, sizeof head);
    int reads = fd;
    if (have > 0 && (fcntl(fd, F_GETFL) & O_ACCMODE) == O_WRONLY) {
        snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
        reads = real_open(link, O_RDONLY | O_CLOEXEC);
        if (reads < 0) give_up(link);
    }
    for (uint64_t done = 0; done < have;) {
        ssize_t now = pread(reads, record + 24 + done, have - done, (off_t)(from + done));
        if (now < 0 && errno == EINTR) continue;
        if (now <= 0) give_up("what a write replaces");
        done += (uint64_t)now;
    }
    if (reads != fd) real_close(reads);
    all(undo_of[fd] - 1, record, 24 + have);
    free(record);
}

static int mode_of(int flags, va_list *arguments) {
    return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(*arguments, int) : 0;
}

int open64(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = mode_of(flags, &arguments);
    va_end(arguments);
    ready();
    pthread_mutex_lock(&lock);
    int fd = real_open(path, flags, mode);
    opened(fd, flags);
    pthread_mutex_unlock(&lock);
    return fd;
}

int open(const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = mode_of(flags, &arguments);
    va_end(arguments);
    return open64(path, flags, mode);
}

int openat64(int folder, const char *path, int flags, ...) {
    va_list arguments;
    va_start(arguments, flags);
    int mode = mode_of(flags, &arguments);
    va_end(arguments);
    ready();
    pthread_mutex_lock(&lock);
    int fd = real_openat(folder, path, flags, mode);
    opened(fd, flags);
    pthread_mutex_unlock(&lock);
    return fd;
}

int close(int fd) {
    ready();
    pthread_mutex_lock(&lock);
    if (ours(fd)) {
        real_close(undo_of[fd] - 1);
        undo_of[fd] = 0;
    }
    int done = real_close(fd);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off_t at) {
    ready();
    pthread_mutex_lock(&lock);
    if (ours(fd)) keep(fd, (uint64_t)at, count);
    ssize_t done = real_pwrite(fd, bytes, count, at);
    pthread_mutex_unlock(&lock);
    return done;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t at) { return pwrite64(fd, bytes, count, at); }

ssize_t write(int fd, const void *bytes, size_t count) {
    ready();
    if (!ours(fd)) return real_write(fd, bytes, count);
    pthread_mutex_lock(&lock);
    int whence = (fcntl(fd, F_GETFL) & O_APPEND) ? SEEK_END : SEEK_CUR;
    keep(fd, (uint64_t)lseek(fd, 0, whence), count);
    ssize_t done = real_write(fd, bytes, count);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate64(int fd, off_t size) {
    ready();
    pthread_mutex_lock(&lock);
    if (ours(fd)) keep(fd, (uint64_t)size, UINT64_MAX - (uint64_t)size);
    int done = real_ftruncate(fd, size);
    pthread_mutex_unlock(&lock);
    return done;
}

int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }

static int synced(int fd, int (*sync)(int)) {
    ready();
    if (!ours(fd)) return sync(fd);
    if (lies != NULL && access(lies, F_OK) == 0) return 0;
    if (slow != NULL && access(slow, F_OK) == 0) usleep(30000);
    /* Locked all the while: what is written meanwhile may not be on the disk. */
    pthread_mutex_lock(&lock);
    int done = sync(fd);
    if (done == 0 && real_ftruncate(undo_of[fd] - 1, 0) != 0) give_up("the undo log");
    pthread_mutex_unlock(&lock);
    return done;
}

int fsync(int fd) {
    ready();
    return synced(fd, real_fsync);
}

int fdatasync(int fd) {
    ready();
    return synced(fd, real_fdatasync);
}
