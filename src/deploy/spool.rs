//! Buffer for bytes that arrive in pieces: a few stay in memory, more go to a file in the scratch folder.

use super::Scratch;
use bytes::{Bytes, BytesMut};
use memmap2::Mmap;
use std::io;
use tokio::{fs::File, io::AsyncWriteExt};

/// Bytes kept in memory before a file is used.
const MEMORY_BYTES_MAX: usize = 256 * 1024;

/// Bytes received so far. The file has no name, so it disappears with the value or the daemon.
#[derive(Debug)]
pub struct Spool<'a> {
    scratch: &'a Scratch,
    memory: BytesMut,
    file: Option<File>,
}

impl<'a> Spool<'a> {
    /// Creates an empty spool.
    #[must_use]
    pub fn new(scratch: &'a Scratch) -> Self {
        Self { scratch, memory: BytesMut::new(), file: None }
    }

    /// Appends a piece.
    pub async fn write(&mut self, piece: &[u8]) -> io::Result<()> {
        if let Some(file) = &mut self.file {
            return file.write_all(piece).await;
        }
        self.memory.extend_from_slice(piece);
        if self.memory.len() > MEMORY_BYTES_MAX {
            let mut file = File::from_std(self.scratch.file()?);
            file.write_all(&self.memory).await?;
            self.memory = BytesMut::new();
            self.file = Some(file);
        }
        Ok(())
    }

    /// Returns all bytes. A file is mapped into memory: its pages are read on use, and the kernel may drop them and
    /// read them again.
    pub async fn finish(self) -> io::Result<Bytes> {
        let Some(mut file) = self.file else { return Ok(self.memory.freeze()) };
        file.flush().await?;
        #[expect(unsafe_code, reason = "a mapped file")]
        // SAFETY: the file has no name and one descriptor, which ends here, so nobody can change or shorten it.
        let mapped = unsafe { Mmap::map(&file) }?;
        Ok(Bytes::from_owner(mapped))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_in_comes_out_however_much_it_is() {
        let data = tempfile::tempdir().expect("a folder");
        let scratch = Scratch::open(data.path().join("incoming")).expect("a scratch folder");
        for (pieces, is_file) in [(0, false), (1, false), (64, false), (65, true), (1_000, true)] {
            let mut spool = Spool::new(&scratch);
            for piece in 0..pieces {
                spool.write(&[piece as u8; 4096]).await.expect("it is written");
            }
            assert_eq!(spool.file.is_some(), is_file, "{pieces}");
            let bytes = spool.finish().await.expect("it is read");
            assert_eq!(bytes.len(), pieces * 4096);
            assert!(bytes.chunks(4096).zip(0..).all(|(chunk, piece)| chunk == [piece as u8; 4096]), "{pieces}");
            assert_eq!(std::fs::read_dir(data.path().join("incoming")).expect("the folder").count(), 0, "no name");
        }
    }
}
