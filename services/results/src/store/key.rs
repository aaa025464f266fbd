//! The key under which receipts name a user: whoever has the receipts alone can neither read a user's id from them nor
//! try ids out.

use super::error::OpenError;
use hmac::{Hmac, Mac as _};
use service_kit::hexadecimal;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

const KEY_BYTES: usize = 32;

/// What receipts say instead of a user's id: HMAC-SHA256 under the erasure key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UserHash([u8; 32]);

impl fmt::Display for UserHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl std::str::FromStr for UserHash {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        parse_hex(text).map(Self).ok_or(())
    }
}

/// The key of `--erasure-key-file`: 32 random bytes.
#[derive(Clone)]
pub(super) struct ErasureKey {
    mac: Hmac<Sha256>,
    fingerprint: String,
}

impl fmt::Debug for ErasureKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Never the key.
        f.debug_struct("ErasureKey").field("fingerprint", &self.fingerprint).finish()
    }
}

impl ErasureKey {
    /// Reads the key, which must be readable by its owner only. With `create`, a file that does not exist is made.
    pub(super) fn open(path: &Path, create: bool) -> Result<Self, OpenError> {
        let failed = |source| OpenError::KeyFile { path: path.to_owned(), source };
        match File::open(path) {
            Ok(file) => Self::read(file, path),
            Err(error) if error.kind() == ErrorKind::NotFound && create => Self::create(path).map_err(failed),
            Err(error) if error.kind() == ErrorKind::NotFound => {
                Err(OpenError::KeyMissing { path: path.to_owned() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn read(mut file: File, path: &Path) -> Result<Self, OpenError> {
        let failed = |source| OpenError::KeyFile { path: path.to_owned(), source };
        let mode = file.metadata().map_err(failed)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(OpenError::KeyExposed { path: path.to_owned(), mode });
        }
        let mut text = String::new();
        (&mut file).take(1 << 10).read_to_string(&mut text).map_err(failed)?;
        let key = parse_hex(text.trim()).ok_or_else(|| OpenError::KeyDamaged { path: path.to_owned() })?;
        Ok(Self::new(&key))
    }

    fn create(path: &Path) -> std::io::Result<Self> {
        let mut key = [0; KEY_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut key)?;
        // Under its name only when it is whole: a file of half a key could never be read again.
        let unfinished = super::files::beside(path, ".new");
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        writeln!(file, "{}", Hex(&key))?;
        file.sync_all()?;
        std::fs::rename(&unfinished, path)?;
        super::files::sync_folder_of(path)?;
        Ok(Self::new(&key))
    }

    fn new(key: &[u8; KEY_BYTES]) -> Self {
        // Cannot be confused with a user's hash: those are 32 bytes.
        let fingerprint = Sha256::new_with_prefix(b"convoy erasure key\0").chain_update(key).finalize();
        Self {
            mac: Hmac::new_from_slice(key).expect("HMAC takes keys of any length"),
            fingerprint: Hex(&fingerprint[..8]).to_string(),
        }
    }

    /// Tells one key from another, and nothing about it.
    pub(super) fn fingerprint(&self) -> &str {
        &self.fingerprint
    }

    pub(super) fn hash(&self, user_id: &str) -> UserHash {
        UserHash(self.mac.clone().chain_update(user_id).finalize().into_bytes().into())
    }
}

struct Hex<'a>(&'a [u8]);

impl fmt::Display for Hex<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, self.0)
    }
}

fn write_hex(f: &mut fmt::Formatter<'_>, bytes: &[u8]) -> fmt::Result {
    f.write_str(&hexadecimal(bytes))
}

fn parse_hex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, at) in bytes.iter_mut().zip((0..).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_key_is_made_once_for_its_owner_and_read_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasure.key");
        assert!(matches!(ErasureKey::open(&path, false), Err(OpenError::KeyMissing { .. })));
        let made = ErasureKey::open(&path, true).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = ErasureKey::open(&path, false).unwrap();
        assert_eq!(made.hash("u1"), read.hash("u1"));
        assert_ne!(made.hash("u1"), made.hash("u2"));
        assert_eq!(made.hash("u1").to_string().parse(), Ok(made.hash("u1")));
        let other = ErasureKey::open(&folder.path().join("other.key"), true).unwrap();
        assert_ne!(made.hash("u1"), other.hash("u1"));
        assert_ne!(made.fingerprint(), other.fingerprint());
    }

    #[test]
    fn a_key_that_others_may_read_or_that_is_none_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("erasure.key");
        ErasureKey::open(&path, true).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = ErasureKey::open(&path, true).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        for text in ["", "secret", &"g".repeat(64)] {
            let path = folder.path().join("bad.key");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(ErasureKey::open(&path, true), Err(OpenError::KeyDamaged { .. })), "{text}");
        }
    }

    /// RFC 4231's second case: the hash is HMAC-SHA256 and nothing else.
    #[test]
    fn the_hash_is_hmac_sha256() {
        let mac: Hmac<Sha256> = Hmac::new_from_slice(b"Jefe").unwrap();
        let key = ErasureKey { mac, fingerprint: String::new() };
        assert_eq!(
            key.hash("what do ya want for nothing?").to_string(),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }
}
