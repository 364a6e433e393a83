//! `replicated-write etcd|postgresql PORTS SECONDS WRITERS BYTES`: so many writers, each on a connection of its own, send values of so many bytes one
//! after the other, each only when the one before is acknowledged. PORTS are the servers' on loopback, separated by commas; etcd's writers spread over
//! them, PostgreSQL's go to the first, the primary. Prints one line: acknowledged writes, seconds, p50 and p99 in microseconds.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tokio::sync::Barrier;
use tokio::task::JoinSet;
use tokio_postgres::NoTls;

const TABLE: &str = "create table if not exists written (writer int, number bigint, value bytea, primary key (writer, number)); truncate written";
const INSERT: &str = "insert into written values ($1, $2, $3)";

/// One writer's connection.
enum Writer {
    Etcd(etcd_client::Client),
    Postgresql(tokio_postgres::Client, tokio_postgres::Statement),
}

impl Writer {
    async fn write(&mut self, writer: usize, number: i64, value: &[u8]) -> Result<()> {
        match self {
            Self::Etcd(client) => client.put(format!("{writer}/{number}"), value, None).await.map(|_| ())?,
            Self::Postgresql(client, insert) => {
                client.execute(insert, &[&i32::try_from(writer)?, &number, &value]).await.map(|_| ())?;
            }
        }
        Ok(())
    }
}

async fn postgresql(port: &str) -> Result<tokio_postgres::Client> {
    let (client, connection) =
        tokio_postgres::connect(&format!("host=127.0.0.1 port={port} user=postgres dbname=postgres"), NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn connect(peer: &str, ports: &[&str], writer: usize) -> Result<Writer> {
    match peer {
        "etcd" => {
            let port = ports[writer % ports.len()];
            Ok(Writer::Etcd(etcd_client::Client::connect([format!("127.0.0.1:{port}")], None).await?))
        }
        "postgresql" => {
            let client = postgresql(ports[0]).await?;
            let insert = client.prepare(INSERT).await?;
            Ok(Writer::Postgresql(client, insert))
        }
        other => bail!("{other} is not among the peers: etcd, postgresql"),
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [peer, ports, seconds, writers, bytes] = arguments.as_slice() else {
        bail!("usage: replicated-write etcd|postgresql PORTS SECONDS WRITERS BYTES");
    };
    let ports: Vec<&str> = ports.split(',').collect();
    let (seconds, writers, bytes): (u64, usize, usize) = (seconds.parse()?, writers.parse()?, bytes.parse()?);
    if peer == "postgresql" {
        postgresql(ports[0]).await?.batch_execute(TABLE).await?;
    }
    let start = Arc::new(Barrier::new(writers + 1));
    let mut tasks = JoinSet::new();
    for writer in 0..writers {
        let mut connection = connect(peer, &ports, writer).await.with_context(|| format!("connecting writer {writer}"))?;
        let (start, value) = (Arc::clone(&start), vec![0xA5; bytes]);
        tasks.spawn(async move {
            start.wait().await;
            let end = Instant::now() + Duration::from_secs(seconds);
            let mut latencies_us = Vec::new();
            for number in 0.. {
                let sent = Instant::now();
                if sent >= end {
                    break;
                }
                connection.write(writer, number, &value).await?;
                latencies_us.push(sent.elapsed().as_micros());
            }
            anyhow::Ok(latencies_us)
        });
    }
    start.wait().await;
    let begun = Instant::now();
    let mut latencies_us = Vec::new();
    while let Some(written) = tasks.join_next().await {
        latencies_us.extend(written??);
    }
    let took = begun.elapsed();
    latencies_us.sort_unstable();
    let percentile = |percent: usize| latencies_us[(latencies_us.len() - 1) * percent / 100];
    println!("{} {:.3} {} {}", latencies_us.len(), took.as_secs_f64(), percentile(50), percentile(99));
    Ok(())
}
