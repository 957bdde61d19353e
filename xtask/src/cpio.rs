//! Archives that Linux unpacks as its first file system: cpio in the "newc" form, byte for byte the same for the same files.

/// A regular file or directory's permission bits and type, as in `stat`.
const DIRECTORY: u32 = 0o040755;
const FILE: u32 = 0o100644;
const PROGRAM: u32 = 0o100755;
const LINK: u32 = 0o120777;
const CHARACTER_DEVICE: u32 = 0o020600;

/// An archive under construction.
#[derive(Clone, Debug, Default)]
pub struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    /// An empty archive.
    pub fn new() -> Self {
        Archive::default()
    }

    /// Adds a directory; its parents must be there already.
    pub fn directory(mut self, path: &str) -> Self {
        self.entry(path, DIRECTORY, (0, 0), &[]);
        self
    }

    /// Adds a file.
    pub fn file(mut self, path: &str, contents: &[u8]) -> Self {
        self.entry(path, FILE, (0, 0), contents);
        self
    }

    /// Adds a file that may be executed.
    pub fn program(mut self, path: &str, contents: &[u8]) -> Self {
        self.entry(path, PROGRAM, (0, 0), contents);
        self
    }

    /// Adds a symbolic link.
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entry(path, LINK, (0, 0), target.as_bytes());
        self
    }

    /// Adds a character device.
    pub fn character_device(mut self, path: &str, major: u32, minor: u32) -> Self {
        self.entry(path, CHARACTER_DEVICE, (major, minor), &[]);
        self
    }

    /// The archive's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.bytes
    }

    /// A header of thirteen 8-digit hexadecimal fields, the name, the contents; name and contents padded to 4 bytes (the
    /// kernel's documentation, "initramfs buffer format").
    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), contents: &[u8]) {
        let inode = self.entries;
        self.entries += 1;
        let links = if mode == DIRECTORY { 2 } else { 1 };
        let size = u32::try_from(contents.len()).unwrap_or(u32::MAX);
        let name = path.trim_start_matches('/');
        let name_size = name.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file, device it is, name's size, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08X}").as_bytes());
        }
        self.bytes.extend(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(contents);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_its_headers_and_padding() {
        let bytes = Archive::new().directory("/a").program("/a/b", b"hello").finish();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        assert_eq!(text.matches("070701").count(), 3);
        assert!(text.starts_with("07070100000000000041ED0000000000000000000000020000000000000000"), "{text}");
        assert!(text.contains("a/b\0") && text.contains("hello\0\0\0") && text.contains("TRAILER!!!\0"));
        let name = text.find("a/b\0").unwrap();
        assert_eq!(text[name..].find("hello").unwrap() % 4, (4 - name % 4) % 4);
    }

    #[test]
    fn the_system_s_own_cpio_can_read_it() {
        let Some(cpio) = crate::run::find_program("cpio") else { return };
        let file = std::env::temp_dir().join(format!("lockstep-cpio-{}", std::process::id()));
        std::fs::write(&file, Archive::new().directory("d").file("d/f", b"x").link("d/l", "f").finish())
            .unwrap();
        let list = format!("{} -t --quiet < {}", cpio.display(), file.display());
        let list = crate::run::Cmd::new("sh").args(["-c", &list]).check().unwrap();
        std::fs::remove_file(&file).unwrap();
        assert_eq!(list.lines().collect::<Vec<_>>(), ["d", "d/f", "d/l"]);
    }
}
