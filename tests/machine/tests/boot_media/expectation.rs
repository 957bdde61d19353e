//! What a console must say after a boot: the loader, the command line, the modules with their contents, the verdict.

use machine_tests::Exit;

/// A boot that went well, as the console must show it.
#[derive(Clone, Debug)]
pub struct Expectation {
    /// The whole command line.
    pub words: String,
    /// Name and content of each module, in order.
    pub modules: Vec<(String, Vec<u8>)>,
    /// How the run ends, and what the kernel's last line then is.
    pub end: End,
}

/// The two good ends.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum End {
    /// The machine has no VMX: the kernel says so and refuses.
    NoVmx,
    /// The boot work is done.
    Done,
}

impl Expectation {
    /// Checks a run. The error says what is not as it must be.
    pub fn check(&self, exit: &Exit, console: &str) -> Result<(), String> {
        let lines: Vec<&str> = console.lines().map(str::trim_end).collect();
        let loaded: Vec<_> = lines.iter().filter_map(|l| l.split_once("loaded by ")).collect();
        let [(_, loaded)] = loaded[..] else {
            return Err(format!("{} lines say who loaded the kernel", loaded.len()));
        };
        let (loader, words) = loaded.split_once("; command line: ").ok_or("no command line")?;
        same("the loader", loader.split(' ').next().unwrap_or_default(), "GRUB")?;
        same("the command line", words, &self.words)?;
        let found: Vec<&str> = facts(&lines, "module").collect();
        let wanted: Vec<String> =
            self.modules.iter().enumerate().map(|(i, (n, c))| module(i, n, c)).collect();
        same("the modules", &found.join("\n"), &wanted.join("\n"))?;
        let verdict =
            facts(&lines, "boot").filter(|fact| fact.contains("verdict=")).collect::<Vec<_>>().join("\n");
        match self.end {
            End::NoVmx => {
                same("the verdict", &verdict, "verdict=refused guests=no")?;
                if !facts(&lines, "missing").any(|fact| fact.contains("need=vmx")) {
                    return Err("the kernel refuses and does not say that VMX is missing".into());
                }
                same("the end", &format!("{exit:?}"), "Refused")
            }
            End::Done => {
                same("the verdict", &verdict, "verdict=done after=exit")?;
                same("the end", &format!("{exit:?}"), "Success")
            }
        }
    }
}

fn same(what: &str, found: &str, wanted: &str) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: found {found:?}, wanted {wanted:?}")) }
}

/// The console's lines `@@ WORD ...`, without those two words.
fn facts<'a>(lines: &'a [&str], word: &'a str) -> impl Iterator<Item = &'a str> {
    lines.iter().filter_map(move |line| line.strip_prefix("@@ ")?.strip_prefix(word)?.strip_prefix(' '))
}

fn module(index: usize, name: &str, content: &[u8]) -> String {
    format!("index={index} name={name} bytes={} crc32={:08x}", content.len(), crc32(content))
}

/// CRC-32 (IEEE 802.3), eight bits at a time.
fn crc32(bytes: &[u8]) -> u32 {
    let table: [u32; 256] = std::array::from_fn(|index| {
        (0..8).fold(index as u32, |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    });
    !bytes.iter().fold(!0, |crc, byte| crc >> 8 ^ table[(crc as u8 ^ byte) as usize])
}

#[test]
fn the_checksum_is_the_usual_one() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
}

/// Each part of the expectation can fail: a console that is right in all but one thing is refused, naming it.
#[test]
fn a_console_that_is_wrong_in_one_thing_is_refused() {
    let good = "[    0.0] cpu0 info  loaded by GRUB 2.06-13; command line: after=exit name=a\r\n\
                @@ module index=0 name=config bytes=9 crc32=cbf43926\r\n\
                @@ missing cpu=0 need=vmx loss=guests\r\n\
                @@ boot verdict=refused guests=no\r\n";
    let modules = vec![("config".to_owned(), b"123456789".to_vec())];
    let wanted = Expectation { words: "after=exit name=a".into(), modules, end: End::NoVmx };
    assert_eq!(wanted.check(&Exit::Refused, good), Ok(()));
    for (from, to, complaint) in [
        ("GRUB", "Mystery", "the loader"),
        ("name=a", "name=b", "the command line"),
        ("name=config", "name=other", "the modules"),
        ("bytes=9", "bytes=8", "the modules"),
        ("cbf43926", "cbf43927", "the modules"),
        ("@@ module", "@@ modules", "the modules"),
        ("need=vmx", "need=pmu", "does not say that VMX"),
        ("refused", "done", "the verdict"),
        ("[    0.0]", "loaded by GRUB; command line: x\n[", "2 lines"),
    ] {
        let bad = good.replacen(from, to, 1);
        let error = wanted.check(&Exit::Refused, &bad);
        assert!(error.as_ref().is_err_and(|e| e.contains(complaint)), "{from} -> {to}: {error:?}");
    }
    for exit in [Exit::Success, Exit::Panic, Exit::Limit, Exit::PowerOff] {
        assert!(wanted.check(&exit, good).is_err_and(|e| e.contains("the end")));
    }
    let done = Expectation { end: End::Done, ..wanted };
    let good = good.replace("refused guests=no", "done after=exit");
    assert_eq!(done.check(&Exit::Success, &good), Ok(()));
    assert!(done.check(&Exit::Refused, &good).is_err() && done.check(&Exit::Success, "").is_err());
}
