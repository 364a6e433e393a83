//! What an author does whose program keeps no rule: signs whatever stands there.

use ed25519_dalek::{Signer, SigningKey};
use ehe::identity::Identity;

use crate::value::Cbor;

/// Signs a COSE_Sign1 anew, protected header and payload as they stand, whatever they say.
pub(super) fn sign_again(signed: &mut Cbor, external_aad: &[u8], by: &Identity) {
    let structure = Cbor::Array(vec![
        Cbor::Text("Signature1".into()),
        signed.at(0).clone(),
        Cbor::Bytes(external_aad.to_vec()),
        signed.at(2).clone(),
    ]);
    let key = SigningKey::from_bytes(&by.sign_key().to_seed());
    *signed.at(3) = Cbor::Bytes(key.sign(&structure.to_vec()).to_bytes().to_vec());
}
