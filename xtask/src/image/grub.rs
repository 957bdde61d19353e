//! The loader's configuration: the menu of a medium, and the files that a network boot reads (pure).

use std::net::Ipv4Addr;

use super::{CONFIG_NAME, Image, Module, Words, module_file};

/// Comment at the head of every generated file.
const GENERATED: &str = "# Written by `cargo xtask image`.\n";

/// Console on the first serial port as well as on the screen, as the kernel has it, and a way to say what went wrong.
/// `boot` by itself would start a kernel whose modules failed to load; an entry that ends with an error is not started.
const PROLOGUE: &str = r#"if serial --unit=0 --speed=115200 --word=8 --parity=no --stop=1; then
  terminal_input serial console
  terminal_output serial console
fi

function lockstep_failed {
  echo
  echo "Lockstep was not started: this loader could not load $1."
  echo "The loader is GRUB for $grub_cpu-$grub_platform; it must know Multiboot2 and read $lockstep_dir."
  echo "Write the medium again with 'cargo xtask image'; for a network boot see docs/pxe.md."
  echo "Escape goes back to the menu."
  sleep --interruptible 60
}
"#;

/// One line of the menu: its key for `default=`, its title, and the words that change.
struct Entry {
    id: &'static str,
    title: &'static str,
    words: &'static str,
    /// Whether the configuration is loaded.
    config: bool,
}

/// The menu. "Boot proof only" leaves the configuration out, so that nothing a user wrote can be in the way.
const MENU: [Entry; 3] = [
    Entry { id: "normal", title: "Lockstep", words: "", config: true },
    Entry {
        id: "safe",
        title: "Lockstep, boot proof only (long form, no configuration)",
        words: "proof=long",
        config: false,
    },
    Entry { id: "debug", title: "Lockstep, debug log", words: "log=debug", config: true },
];

/// The console for what is said before a menu is found. No `if` here: this part is read by a parser that has none, and
/// goes on after an error (a machine without a serial port).
const EARLY_CONSOLE: &str = "serial --unit=0 --speed=115200\n\
     terminal_input serial console\n\
     terminal_output serial console\n";

/// What the loader image runs first: find the medium with our content, then its menu.
pub fn early_for_medium(id: &str) -> String {
    format!(
        "search --no-floppy --file --set=root {}\n\
         set prefix=($root)/boot/grub\n\
         configfile ($root)/boot/grub/grub.cfg\n\
         {EARLY_CONSOLE}\
         echo \"This medium has no /boot/grub/grub.cfg; write it again with cargo xtask image.\"\n\
         sleep 60\n",
        id_file(id)
    )
}

/// The empty file by which the loader knows its medium, from the medium's root.
pub fn id_file(id: &str) -> String {
    format!("/boot/lockstep/{id}.id")
}

/// What the network loader runs first: find the directory. `server` is tried before the place that the loader was
/// itself loaded from, because GRUB takes that from the DHCP server's answer, which in a network with a proxy names
/// another host. Without it the directory works wherever it lies below any server's root.
pub fn early_for_network(server: Option<Ipv4Addr>) -> String {
    let mut text = String::from("export lockstep_dir\n");
    for dir in server.map(|server| format!("(tftp,{server})")).into_iter().chain(["$cmdpath".into()]) {
        text += &format!(
            "set lockstep_dir={dir}\n\
             set prefix={dir}\n\
             configfile {dir}/grub.cfg\n"
        );
    }
    text + EARLY_CONSOLE
        + "echo \"No grub.cfg (this host: $net_default_mac $net_default_ip; loaded from $cmdpath).\"\n\
            echo \"The TFTP server must offer the whole directory that cargo xtask image --pxe wrote.\"\n\
            sleep 60\n\
            reboot\n"
}

/// The menu of a CD or USB medium.
pub fn medium_menu(image: &Image) -> String {
    let mut text = format!("{GENERATED}set lockstep_dir=($root)/boot/lockstep\n{}", prologue(image));
    for entry in &MENU {
        let words = image.words.with(&fixed(entry.words));
        let config =
            image.config.as_ref().filter(|_| entry.config).map(|_| format!("$lockstep_dir/{CONFIG_NAME}"));
        text += &menu_entry(entry, &words.to_string(), config.as_deref(), &image.modules);
    }
    text
}

/// The menu of a network boot: the command line and the configuration come from the host's file, if there is one.
pub fn network_menu(image: &Image) -> String {
    let mut text = format!("{GENERATED}{}{HOST_LOOKUP}", prologue(image));
    for entry in &MENU {
        // The kernel takes the last of two words with the same key.
        let words = format!("$cmdline {}", entry.words);
        let config = entry.config.then_some("$config");
        text += &menu_entry(entry, words.trim_end(), config, &image.modules);
    }
    text
}

/// Finds `hosts/MAC.cfg`. A TFTP server cannot be asked whether a file is there; reading it must show.
const HOST_LOOKUP: &str = r#"
regexp --set=1:m1 --set=2:m2 --set=3:m3 --set=4:m4 --set=5:m5 --set=6:m6 '^(..):(..):(..):(..):(..):(..)$' "$net_default_mac"
set mac=$m1-$m2-$m3-$m4-$m5-$m6
set cmdline=
set config=
source $lockstep_dir/hosts/default.cfg
if source $lockstep_dir/hosts/$mac.cfg; then
  echo "This host: $mac, from hosts/$mac.cfg"
else
  echo "This host: $mac, which has no hosts/$mac.cfg: hosts/default.cfg it is"
fi
if [ -n "$config" ]; then set config=$lockstep_dir/hosts/$config; fi
"#;

fn prologue(image: &Image) -> String {
    // A menu that waits 0 seconds is not even drawn.
    format!("set timeout={}\nset default=normal\n{PROLOGUE}", image.timeout)
}

/// One menu entry. `config` is the path of the configuration, or a variable that may be empty.
fn menu_entry(entry: &Entry, words: &str, config: Option<&str>, modules: &[Module]) -> String {
    let mut text = format!("\nmenuentry '{}' --id {} {{\n  set failed=\n", entry.title, entry.id);
    let load =
        |command: String, what: &str| format!("if {command}; then true; else set failed=\"{what}\"; fi");
    let kernel = format!("multiboot2 $lockstep_dir/kernel {words}");
    text += &format!("  {}\n", load(kernel.trim_end().into(), "$lockstep_dir/kernel"));
    if let Some(config) = config {
        let line = load(format!("module2 {config} {CONFIG_NAME}"), config);
        text += &format!("  if [ -n \"{config}\" ]; then {line}; fi\n");
    }
    for (index, module) in modules.iter().enumerate() {
        let file = format!("$lockstep_dir/modules/{}", module_file(index, module));
        let command = format!("module2 {file} {} {}", module.name, module.words);
        text += &format!("  {}\n", load(command.trim_end().into(), &file));
    }
    text + "  if [ -n \"$failed\" ]; then lockstep_failed \"$failed\"; false; fi\n}\n"
}

/// A file of one host: what it sets replaces what `hosts/default.cfg` set.
pub fn host_file(heading: &str, words: Option<&Words>, config: Option<&str>) -> String {
    let mut text = format!("# {heading}\n");
    if let Some(words) = words {
        text += &format!("set cmdline=\"{words}\"\n");
    }
    if let Some(config) = config {
        text += &format!("set config=\"{config}\"\n");
    }
    text
}

/// Words that are written in this file and known to be good.
fn fixed(text: &'static str) -> Words {
    Words::parse(text).unwrap_or_default()
}
