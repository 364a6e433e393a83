//! What a server knows again after a restart, without writing it down: which connection ids are its own, and how to say so that it
//! is believed that it does not know the connection any more (stateless reset, RFC 9000 §10.3). The peer of a program that was killed
//! hears so upon its next packet and connects again; without it, it would speak to nobody for the idle time.

use std::sync::Arc;

use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use quinn::EndpointConfig;
use quinn::crypto::{CryptoError, HmacKey};
use quinn_proto::{ConnectionIdGenerator, HashedConnectionIdGenerator};
use sha2::Sha256;
use zeroize::Zeroizing;

use super::ChannelError;
use crate::store::Credentials;

const RESETS: &[u8] = b"ehe channel: stateless resets";
const CONNECTION_IDS: &[u8] = b"ehe channel: connection ids";

/// Signs resets.
struct ResetKey(Hmac<Sha256>);

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        let signature = self.0.clone().chain_update(data).finalize().into_bytes();
        for (to, from) in signature_out.iter_mut().zip(signature) {
            *to = from;
        }
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        self.0.clone().chain_update(data).verify_slice(signature).map_err(|_| CryptoError)
    }
}

/// Of a server with these credentials. Both keys follow from the channel's private key: nobody else has it, and it outlives the
/// program.
pub(super) fn endpoint(credentials: &Credentials) -> Result<EndpointConfig, ChannelError> {
    let secret = credentials.channel().key.for_tls();
    let keys = Hkdf::<Sha256>::new(None, secret.secret_der());
    let derive = |label: &[u8], key: &mut [u8]| keys.expand(label, key).map_err(|e| ChannelError::Setup(e.to_string()));
    let (mut resets, mut ids) = (Zeroizing::new([0; 32]), [0; 8]);
    derive(RESETS, resets.as_mut())?;
    derive(CONNECTION_IDS, &mut ids)?;
    let resets = Hmac::new_from_slice(resets.as_ref()).map_err(|e| ChannelError::Setup(e.to_string()))?;
    let mut config = EndpointConfig::new(Arc::new(ResetKey(resets)));
    let ids = u64::from_le_bytes(ids);
    config.cid_generator(move || -> Box<dyn ConnectionIdGenerator> {
        Box::new(HashedConnectionIdGenerator::from_key(ids))
    });
    Ok(config)
}
