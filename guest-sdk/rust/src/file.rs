use std::io::{self, BufRead, Read, Seek, SeekFrom, Write};

use crate::{Context, Result};

/// Bytes that go between guest and host at once.
const PART: usize = 1 << 20;

/// A file that is read in parts, as it is asked for: a name, and a position.
///
/// ```no_run
/// use std::io::BufRead;
///
/// for line in circles::target().open("/notes.txt")?.lines() {
///     println!("{}", line?);
/// }
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct Reader {
    context: Context,
    path: String,
    size: u64,
    offset: u64,      // of what follows buffer
    buffer: Vec<u8>,  // what the host gave
    taken: usize,     // of buffer
}

impl Reader {
    pub(crate) fn open(context: Context, path: &str) -> Result<Reader> {
        let stat = context.stat(path)?;
        // That it may be read, and is a file, had better be known now.
        context.read_at(path, 0, 0)?;
        Ok(Reader { context, path: path.into(), size: stat.size, offset: 0, buffer: Vec::new(), taken: 0 })
    }
}

impl BufRead for Reader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.buffer.len() {
            self.taken = 0;
            self.buffer = self.context.read_at(&self.path, self.offset, PART as u32)?;
            self.offset += self.buffer.len() as u64;
        }
        Ok(&self.buffer[self.taken..])
    }

    fn consume(&mut self, n: usize) {
        self.taken = self.buffer.len().min(self.taken + n);
    }
}

impl Read for Reader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.fill_buf()?.read(buf)?;
        self.consume(n);
        Ok(n)
    }
}

impl Seek for Reader {
    /// The end is where it was when the file was opened.
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(n) => Some(n),
            SeekFrom::End(n) => self.size.checked_add_signed(n),
            SeekFrom::Current(n) => (self.offset - (self.buffer.len() - self.taken) as u64).checked_add_signed(n),
        };
        self.offset = at.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "seek to before the beginning"))?;
        self.buffer.clear();
        self.taken = 0;
        Ok(self.offset)
    }
}

/// A file that is written in parts. What was written is there when [`Write::flush`] or
/// the last of the writer is done; call `flush` to hear of errors.
#[derive(Debug)]
pub struct Writer {
    context: Context,
    path: String,
    buffer: Vec<u8>,
}

impl Writer {
    pub(crate) fn create(context: Context, path: &str) -> Result<Writer> {
        context.write(path, [])?;
        Ok(Writer { context, path: path.into(), buffer: Vec::new() })
    }
}

impl Write for Writer {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        if self.buffer.len() >= PART {
            self.flush()?;
        }
        let n = data.len().min(PART - self.buffer.len());
        self.buffer.extend_from_slice(&data[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.buffer.is_empty() {
            // Whatever became of it, it is not written twice.
            let data = std::mem::take(&mut self.buffer);
            self.context.append(&self.path, data)?;
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let _ = self.flush();
    }
}
