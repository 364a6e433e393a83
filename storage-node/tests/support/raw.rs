//! A client that can break every rule of the channel: QUIC and TLS without `certs::Client`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use certs::store::names;
use ehe::wire::Response;
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, ConnectionError, Endpoint, RecvStream, SendStream, TransportConfig, VarInt};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::alliance::{Alliance, LIMIT};

/// What may be odd about a client.
pub struct Odd<'a> {
    pub alpn: &'a [u8],
    /// Bytes that it takes of all answers together, before it reads.
    pub window: Option<u32>,
}

pub const PLAIN: Odd<'static> = Odd { alpn: certs::Protocol::Clients.alpn(), window: None };

/// A connection, as far as it came.
pub struct Raw {
    pub connection: Connection,
    _endpoint: Endpoint,
}

/// Connects with the files of `shown` (no certificate where it is `None`), trusting the authority of `alliance`.
pub async fn connect(
    alliance: &Alliance,
    shown: Option<(&Alliance, &str)>,
    address: SocketAddr,
    odd: Odd<'_>,
) -> Result<Raw, ConnectionError> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(alliance.path("node").join(names::CA)).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match shown {
        None => tls.with_no_client_auth(),
        Some((of, name)) => {
            let chain = CertificateDer::pem_file_iter(of.path(name).join(names::CHANNEL)).unwrap();
            let key = PrivateKeyDer::from_pem_file(of.path(name).join(names::CHANNEL_KEY)).unwrap();
            tls.with_client_auth_cert(chain.map(Result::unwrap).collect(), key).unwrap()
        }
    };
    tls.alpn_protocols = vec![odd.alpn.to_vec()];
    let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
    let mut transport = TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    if let Some(window) = odd.window {
        transport.receive_window(VarInt::from_u32(window)).stream_receive_window(VarInt::from_u32(window));
    }
    config.transport_config(Arc::new(transport));
    let endpoint = Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
    // The name that stands for a node's id in its certificate.
    let name = format!("{}.node.ehe.alt", alliance.charter().nodes()[0].id);
    let connection = endpoint.connect_with(config, address, &name).unwrap().await?;
    // A client whose certificate the node refuses believes for a moment that it is connected.
    let mut welcome = connection.accept_uni().await?;
    welcome.read_to_end(16).await.map_err(|_| connection.close_reason().unwrap_or(ConnectionError::Reset))?;
    Ok(Raw { connection, _endpoint: endpoint })
}

impl Raw {
    pub async fn open(&self) -> (SendStream, RecvStream) {
        tokio::time::timeout(LIMIT, self.connection.open_bi()).await.expect("there is room for a stream").unwrap()
    }
}

/// A frame: its length, and it.
pub fn frame(content: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(content.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes
}

/// The first answer on a stream; `None` if it was reset or ended without one.
pub async fn answer(stream: &mut RecvStream) -> Option<Response> {
    let read = async {
        let mut length = [0; 4];
        stream.read_exact(&mut length).await.ok()?;
        let mut content = vec![0; usize::try_from(u32::from_be_bytes(length)).unwrap()];
        stream.read_exact(&mut content).await.ok()?;
        Some(Response::decode(&content).unwrap())
    };
    tokio::time::timeout(LIMIT, read).await.expect("an answer, or the stream's end")
}

/// With which code the peer stopped taking a stream.
pub async fn stopped(stream: &mut SendStream) -> Option<u64> {
    let code = tokio::time::timeout(LIMIT, stream.stopped()).await.expect("the node stops taking it").unwrap();
    code.map(VarInt::into_inner)
}
