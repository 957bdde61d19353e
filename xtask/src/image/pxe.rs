//! The directory that a TFTP server offers to machines which boot over PXE.
//!
//! ```text
//! bios.0  uefi.efi        the loaders
//! grub.cfg                the menu, the same for all
//! kernel  modules/        the same for all
//! hosts/default.cfg       command line and configuration of a host that has no file of its own
//! hosts/52-54-00-….cfg    the same for one host, by the address of the card that it boots from
//! dnsmasq.conf            DHCP and TFTP, ready to run; dnsmasq-proxy.conf beside another DHCP server
//! ```

use std::fs;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use super::dnsmasq::{self, Address, Mode};
use super::loader::{self, Kind};
use super::{Image, Words, copy, date, grub, module_file, set_date, write};
use crate::paths;
use crate::setup::needs::Work;

/// The loader for BIOS.
pub const BIOS_LOADER: &str = "bios.0";
/// The loader for UEFI.
pub const UEFI_LOADER: &str = "uefi.efi";

/// What a PXE directory has besides the image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pxe {
    /// The interface on the machines' network.
    pub interface: String,
    /// Our address there.
    pub address: Address,
    /// The TFTP server's address, built into the loaders. Without it they load from where they came from, which is
    /// right unless another host is the DHCP server.
    pub server: Option<Ipv4Addr>,
    /// Hosts with settings of their own.
    pub hosts: Vec<Host>,
}

impl Default for Pxe {
    fn default() -> Self {
        let interface = dnsmasq::DEFAULT_INTERFACE.into();
        Pxe { interface, address: Address::DEFAULT, server: None, hosts: Vec::new() }
    }
}

/// The address of a network card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || format!("{text:?} is no address of a network card; write it like 52:54:00:12:34:56");
        let parts: Vec<&str> = text.split([':', '-']).collect();
        let mut bytes = [0; 6];
        if parts.len() != bytes.len() || parts.iter().any(|part| part.len() != 2) {
            bail!(wrong());
        }
        for (byte, part) in bytes.iter_mut().zip(parts) {
            *byte = u8::from_str_radix(part, 16).ok().with_context(wrong)?;
        }
        if bytes[0] & 1 == 1 {
            bail!("{text} is a group address; no card has it");
        }
        Ok(Mac(bytes))
    }
}

impl Mac {
    /// With this between the bytes, in lower case as GRUB writes it.
    fn joined(self, separator: &str) -> String {
        self.0.map(|byte| format!("{byte:02x}")).join(separator)
    }
}

impl std::fmt::Display for Mac {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.joined(":"))
    }
}

/// Settings of one host; what is `None` is as for every host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// The address of the card that it boots from.
    pub mac: Mac,
    /// Words for its command line, on top of the image's.
    pub words: Words,
    /// Its configuration.
    pub config: Option<PathBuf>,
}

impl FromStr for Host {
    type Err = anyhow::Error;

    /// Reads `MAC[,config=FILE][,WORD]...`.
    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split(',');
        let mac = parts.next().unwrap_or_default().parse()?;
        let (mut config, mut words) = (None, Vec::new());
        for part in parts {
            match part.split_once('=') {
                Some(("config", file)) => config = Some(PathBuf::from(file)),
                _ => words.push(part),
            }
        }
        Ok(Host { mac, words: Words::parse(&words.join(" "))?, config })
    }
}

/// Writes the directory. Files that are there and not ours stay.
pub(super) fn write_tree(image: &Image, dir: &Path, pxe: &Pxe) -> Result<()> {
    loader::check_packages(Work::Image)?;
    for config in pxe.hosts.iter().filter_map(|host| host.config.as_ref()) {
        if !config.is_file() {
            bail!("there is no file {}", config.display());
        }
    }
    for sub in ["hosts", "modules"] {
        let sub = dir.join(sub);
        fs::create_dir_all(&sub).with_context(|| format!("cannot create {}", sub.display()))?;
    }
    let dir = dir.canonicalize()?;
    forget_modules(&dir)?;
    let mut written = payload(image, &dir)?;
    written.extend(hosts(image, &dir, &pxe.hosts)?);
    written.extend(loaders(&dir, pxe.server)?);
    for mode in [Mode::Server, Mode::Proxy] {
        let file = dir.join(mode.file());
        write(&file, &dnsmasq::configuration(mode, &dir, &pxe.interface, pxe.address, open_to_all(&dir))?)?;
        written.push(file);
    }
    let date = date()?;
    written.iter().try_for_each(|file| set_date(file, date))
}

/// Whether every user may look into a directory: the TFTP server runs as a user of its own.
fn open_to_all(dir: &Path) -> bool {
    let mode = |dir: &Path| fs::metadata(dir).map_or(0, |data| data.permissions().mode());
    dir.ancestors().all(|dir| mode(dir) & 0o001 != 0)
}

/// Modules are numbered, so those of an earlier call would stay beside the new ones.
fn forget_modules(dir: &Path) -> Result<()> {
    for entry in fs::read_dir(dir.join("modules"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.len() > 3 && name.as_bytes()[..2].iter().all(u8::is_ascii_digit) && name.as_bytes()[2] == b'-'
        {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

fn payload(image: &Image, dir: &Path) -> Result<Vec<PathBuf>> {
    let mut written = vec![dir.join("kernel"), dir.join("grub.cfg")];
    copy(&image.kernel, &written[0])?;
    write(&written[1], &grub::network_menu(image))?;
    for (index, module) in image.modules.iter().enumerate() {
        let file = dir.join("modules").join(module_file(index, module));
        copy(&module.file, &file)?;
        written.push(file);
    }
    Ok(written)
}

fn hosts(image: &Image, dir: &Path, hosts: &[Host]) -> Result<Vec<PathBuf>> {
    let dir = dir.join("hosts");
    let mut written = vec![dir.join("default.cfg")];
    let config = config_file(&dir, "default", image.config.as_deref(), &mut written)?;
    let heading =
        "Every host's settings, written by `cargo xtask image`; put changes for a host into MAC.cfg.";
    write(&written[0], &grub::host_file(heading, Some(&image.words), config.as_deref()))?;
    for host in hosts {
        let name = host.mac.joined("-");
        let file = dir.join(format!("{name}.cfg"));
        let config = config_file(&dir, &name, host.config.as_deref(), &mut written)?;
        let heading = format!("Host {}: what is set here replaces what default.cfg sets.", host.mac);
        write(&file, &grub::host_file(&heading, Some(&image.words.with(&host.words)), config.as_deref()))?;
        written.push(file);
    }
    Ok(written)
}

/// Copies a configuration to `NAME.conf` and gives that name.
fn config_file(
    dir: &Path,
    name: &str,
    from: Option<&Path>,
    written: &mut Vec<PathBuf>,
) -> Result<Option<String>> {
    let Some(from) = from else { return Ok(None) };
    let name = format!("{name}.conf");
    copy(from, &dir.join(&name))?;
    written.push(dir.join(&name));
    Ok(Some(name))
}

fn loaders(dir: &Path, server: Option<Ipv4Addr>) -> Result<Vec<PathBuf>> {
    // Threads of one process, the tests for instance, write directories at the same time.
    static CALLS: AtomicU32 = AtomicU32::new(0);
    let call = CALLS.fetch_add(1, Ordering::Relaxed);
    let work = paths::fresh_out_dir(&format!("pxe-work-{}-{call}", std::process::id()))?;
    let early = grub::early_for_network(server);
    let files = vec![dir.join(BIOS_LOADER), dir.join(UEFI_LOADER)];
    loader::build(Kind::BiosNetwork, &early, &work, &files[0])?;
    loader::build(Kind::UefiNetwork, &early, &work, &files[1])?;
    fs::remove_dir_all(work)?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn card_addresses_have_one_form() {
        for text in ["52:54:00:AB:cd:01", "52-54-00-ab-CD-01"] {
            let mac: Mac = text.parse().unwrap();
            assert_eq!(
                (mac.to_string().as_str(), mac.joined("-").as_str()),
                ("52:54:00:ab:cd:01", "52-54-00-ab-cd-01")
            );
        }
        for bad in [
            "",
            "52:54:00:ab:cd",
            "52:54:00:ab:cd:1",
            "52:54:00:ab:cd:0g",
            "01:00:5e:00:00:01",
            "5254:00:ab:cd:01:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_are_read_from_the_command_line() {
        let host: Host = "52:54:00:ab:cd:01,config=/x/a.conf,name=alpha,log=debug".parse().unwrap();
        assert_eq!(host.words.to_string(), "name=alpha log=debug");
        assert_eq!(host.config.as_deref(), Some(Path::new("/x/a.conf")));
        assert!("name=alpha".parse::<Host>().is_err());
    }
}
