#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    ehe_node_fuzz::checkpoint_message(bytes);
});
