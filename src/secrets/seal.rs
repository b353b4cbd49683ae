//! Sealing: encrypts values for the database, and decrypts them.
//!
//! Each generation of a secret has its own data key. The value is sealed with the data key, and the data key with the
//! master key, both by XChaCha20-Poly1305 with random nonces. Place, key, generation and the number of the change are
//! associated data of both, so a row that is copied over another one, or back from an older database, does not open.

use super::{error::SecretError, master_key::MasterKey};
use crate::model::{Sealed, SecretText, VariableKey, VariablePlace};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use zeroize::Zeroizing;

const NONCE_BYTES: usize = 24;
const KEY_BYTES: usize = 32;

/// Labels in the associated data, so that a value and a data key can never be confused.
const OF_VALUE: &str = "levain secret value 1";
const OF_KEY: &str = "levain data key 1";

/// Seals a value as one generation of a secret.
pub fn seal(
    master: &MasterKey,
    place: &VariablePlace,
    key: &VariableKey,
    (generation, sealed_at): (u32, i64),
    value: &SecretText,
) -> Result<Sealed, SecretError> {
    let mut data_key = Zeroizing::new([0; KEY_BYTES]);
    getrandom::fill(data_key.as_mut()).map_err(|_| SecretError::Random)?;
    let bound = |what| bound(what, place, key, generation, sealed_at);
    Ok(Sealed {
        generation,
        sealed_at,
        value: encrypt(&data_key, value.expose().as_bytes(), &bound(OF_VALUE))?,
        wrapped_key: encrypt(master.bytes(), data_key.as_ref(), &bound(OF_KEY))?,
    })
}

/// Opens a sealed value.
pub fn open(
    master: &MasterKey,
    place: &VariablePlace,
    key: &VariableKey,
    sealed: &Sealed,
) -> Result<SecretText, SecretError> {
    let damaged = || SecretError::Damaged { key: key.clone(), place: place.describe(), generation: sealed.generation };
    let bound = |what| bound(what, place, key, sealed.generation, sealed.sealed_at);
    let data_key = decrypt(master.bytes(), &sealed.wrapped_key, &bound(OF_KEY)).ok_or_else(damaged)?;
    let data_key: &[u8; KEY_BYTES] = data_key.as_slice().try_into().map_err(|_| damaged())?;
    let mut value = decrypt(data_key, &sealed.value, &bound(OF_VALUE)).ok_or_else(damaged)?;
    match String::from_utf8(std::mem::take(&mut *value)) {
        Ok(value) => Ok(value.into()),
        Err(error) => {
            drop(Zeroizing::new(error.into_bytes()));
            Err(damaged())
        }
    }
}

/// Seals the data key of a generation with another master key.
pub fn rewrap(
    (from, to): (&MasterKey, &MasterKey),
    place: &VariablePlace,
    key: &VariableKey,
    sealed: &Sealed,
) -> Result<Vec<u8>, SecretError> {
    let bound = bound(OF_KEY, place, key, sealed.generation, sealed.sealed_at);
    let damaged = || SecretError::Damaged { key: key.clone(), place: place.describe(), generation: sealed.generation };
    let data_key = decrypt(from.bytes(), &sealed.wrapped_key, &bound).ok_or_else(damaged)?;
    encrypt(to.bytes(), &data_key, &bound)
}

/// Associated data of a sealed text. Each part has its length before it, so that no two places and keys give the same
/// bytes.
fn bound(what: &str, place: &VariablePlace, key: &VariableKey, generation: u32, sealed_at: i64) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(256);
    let (place, generation, sealed_at) = (place.describe(), generation.to_string(), sealed_at.to_string());
    for part in [what, &place, key.as_str(), &generation, &sealed_at] {
        bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
        bytes.extend_from_slice(part.as_bytes());
    }
    bytes
}

/// Returns the nonce, followed by the sealed text.
fn encrypt(key: &[u8; KEY_BYTES], clear: &[u8], bound: &[u8]) -> Result<Vec<u8>, SecretError> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(|_| SecretError::Random)?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: clear, aad: bound };
    let sealed = cipher.encrypt(&XNonce::from(nonce), payload).map_err(|_| SecretError::TooLong)?;
    Ok([&nonce[..], &sealed].concat())
}

fn decrypt(key: &[u8; KEY_BYTES], sealed: &[u8], bound: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let cipher = XChaCha20Poly1305::new(key.into());
    let payload = Payload { msg: sealed, aad: bound };
    cipher.decrypt(&XNonce::from(*nonce), payload).ok().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::FunctionId;
    use proptest::prelude::*;

    fn key(name: &str) -> VariableKey {
        name.parse().expect("a key")
    }

    #[test]
    fn what_is_sealed_opens_and_nothing_of_it_can_be_seen() {
        let master = MasterKey::generate().expect("random bytes");
        let (place, key) = (VariablePlace::default(), key("API_KEY"));
        let sealed = seal(&master, &place, &key, (1, 7), &"hunter22".into()).expect("it seals");
        let again = seal(&master, &place, &key, (1, 7), &"hunter22".into()).expect("it seals");
        assert_ne!(sealed.value, again.value, "sealing a value twice gives different bytes");
        assert!(!String::from_utf8_lossy(&sealed.value).contains("hunter"));
        assert!(!format!("{sealed:?} {master:?}").contains("value"));
        assert_eq!(open(&master, &place, &key, &sealed).expect("it opens").expose(), "hunter22");
    }

    #[test]
    fn a_row_opens_in_its_own_place_only() {
        let (master, other) = (MasterKey::generate().expect("bytes"), MasterKey::generate().expect("bytes"));
        let (place, name) = (VariablePlace::default(), key("A"));
        let sealed = seal(&master, &place, &name, (2, 9), &"hunter22".into()).expect("it seals");
        let elsewhere = VariablePlace { function: Some(FunctionId::new()), environment: None };
        let production = VariablePlace { function: None, environment: Some("production".parse().expect("a name")) };
        assert!(open(&other, &place, &name, &sealed).is_err(), "another master key");
        assert!(open(&master, &elsewhere, &name, &sealed).is_err(), "another function");
        assert!(open(&master, &production, &name, &sealed).is_err(), "another environment");
        assert!(open(&master, &place, &key("B"), &sealed).is_err(), "another key");
        let older = Sealed { generation: 1, ..sealed.clone() };
        assert!(open(&master, &place, &name, &older).is_err(), "another generation");
        let later = Sealed { sealed_at: 10, ..sealed.clone() };
        assert!(open(&master, &place, &name, &later).is_err(), "another change");
        let crossed = Sealed { wrapped_key: sealed.value.clone(), value: sealed.wrapped_key.clone(), ..sealed.clone() };
        assert!(open(&master, &place, &name, &crossed).is_err(), "value and key exchanged");
        let rewrapped = rewrap((&master, &other), &place, &name, &sealed).expect("it can be wrapped again");
        let rewrapped = Sealed { wrapped_key: rewrapped, ..sealed };
        assert_eq!(open(&other, &place, &name, &rewrapped).expect("it opens").expose(), "hunter22");
        assert!(open(&master, &place, &name, &rewrapped).is_err(), "the old master key");
    }

    proptest! {
        #[test]
        fn no_changed_bit_opens(value in ".{0,40}", at in any::<prop::sample::Index>(), bit in 0u8..8, which: bool) {
            let master = MasterKey::generate().expect("random bytes");
            let (place, name) = (VariablePlace::default(), key("A"));
            let mut sealed = seal(&master, &place, &name, (1, 1), &value.as_str().into()).expect("it seals");
            let opened = open(&master, &place, &name, &sealed).expect("it opens");
            prop_assert_eq!(opened.expose(), value);
            let bytes = if which { &mut sealed.value } else { &mut sealed.wrapped_key };
            let index = at.index(bytes.len());
            bytes[index] ^= 1 << bit;
            prop_assert!(open(&master, &place, &name, &sealed).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(value: Vec<u8>, wrapped_key: Vec<u8>) {
            let master = MasterKey::generate().expect("random bytes");
            let sealed = Sealed { generation: 1, sealed_at: 1, value, wrapped_key };
            prop_assert!(open(&master, &VariablePlace::default(), &key("A"), &sealed).is_err());
        }
    }
}
