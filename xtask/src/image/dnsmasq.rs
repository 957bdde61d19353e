//! Configuration for dnsmasq, which serves DHCP and TFTP to machines that boot over PXE (pure).
//!
//! Two files, for the two situations there are: a network of our own, where dnsmasq is the DHCP server, and a network
//! that has one already, where dnsmasq only adds what PXE needs (a "proxy").

use std::net::Ipv4Addr;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail};

use super::pxe::{BIOS_LOADER, UEFI_LOADER};

/// The interface that is written when nobody names one.
pub const DEFAULT_INTERFACE: &str = "eth1";
/// How many addresses are given out at most.
const MOST_LEASES: u32 = 100;

/// An address of this host with the length of its network's prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: Ipv4Addr,
    /// Bits of the network part.
    pub prefix: u8,
}

impl Address {
    /// What is used when nobody names an address: a private network that few sites have.
    pub const DEFAULT: Address = Address { ip: Ipv4Addr::new(192, 168, 77, 1), prefix: 24 };

    fn mask(self) -> u32 {
        u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0)
    }

    /// The network's own address.
    pub fn network(self) -> Ipv4Addr {
        (self.ip.to_bits() & self.mask()).into()
    }

    /// First and last address to give out: the larger free side of our own address.
    fn range(self) -> (Ipv4Addr, Ipv4Addr) {
        let first = (self.ip.to_bits() & self.mask()) + 1;
        let last = (self.ip.to_bits() | !self.mask()) - 1;
        let ours = self.ip.to_bits();
        if last - ours >= ours - first {
            ((last.saturating_sub(MOST_LEASES - 1).max(ours + 1)).into(), last.into())
        } else {
            (first.into(), (first + MOST_LEASES - 1).min(ours - 1).into())
        }
    }
}

impl FromStr for Address {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let (ip, prefix) = text.split_once('/').context("an address is written like 192.168.77.1/24")?;
        let ip = ip.parse().with_context(|| format!("{ip:?} is no IPv4 address"))?;
        let prefix = prefix.parse().with_context(|| format!("{prefix:?} is no prefix length"))?;
        let address = Address { ip, prefix };
        if !(8..=29).contains(&prefix) {
            bail!(
                "a network with a /{prefix} prefix is too small or too large to boot machines in; use /8 to /29"
            );
        }
        if ip == address.network() || ip.to_bits() == ip.to_bits() | !address.mask() {
            bail!("{ip} is the network's own or its broadcast address, not a host's");
        }
        Ok(address)
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.ip, self.prefix)
    }
}

/// Which of DHCP's two jobs dnsmasq has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It is the network's DHCP server.
    Server,
    /// Another server gives the addresses; dnsmasq adds the name of the loader.
    Proxy,
}

impl Mode {
    /// The name of the configuration file.
    pub fn file(self) -> &'static str {
        match self {
            Mode::Server => "dnsmasq.conf",
            Mode::Proxy => "dnsmasq-proxy.conf",
        }
    }
}

/// The configuration file for this host's `interface`, which has `address`; `dir` is what the TFTP server offers, and
/// `served_to_all` says whether every user may look into it.
///
/// # Errors
/// When dnsmasq cannot take the directory's name.
pub fn configuration(
    mode: Mode,
    dir: &Path,
    interface: &str,
    address: Address,
    served_to_all: bool,
) -> Result<String> {
    let dir = match dir.to_str() {
        Some(text) if dir.is_absolute() && !text.contains(['"', '\\', '\n', '#', ',']) => text,
        _ => bail!("dnsmasq cannot take the directory {dir:?}; use a plain absolute path"),
    };
    let (file, network) = (mode.file(), address.network());
    let text = match mode {
        Mode::Server => {
            let (first, last) = address.range();
            let dhcp = format!("dhcp-range={first},{last},1h\ndhcp-authoritative\n{ARCHITECTURES}");
            format!("{}{dhcp}", heading(SERVER, file, dir, interface, address))
        }
        Mode::Proxy => {
            let dhcp = format!("dhcp-range={network},proxy\n{}", services());
            format!("{}{dhcp}", heading(PROXY, file, dir, interface, address))
        }
    };
    Ok(if served_to_all { text } else { text + AS_ROOT })
}

/// Added when dnsmasq's own user could not read the files.
const AS_ROOT: &str = "
# Not every user may look into this directory, so not dnsmasq's own either. Without this line, put it elsewhere.
user=root
";

const SERVER: &str = "\
# Lockstep over PXE: DHCP and TFTP for a network that has no DHCP server yet.
# (In a network that has one, use dnsmasq-proxy.conf instead. Never run this file there.)
";

const PROXY: &str = "\
# Lockstep over PXE in a network that has a DHCP server already: that one goes on giving the addresses, this
# one only tells machines that boot over PXE what to load, and serves the files. Write it with --interface or
# --address: this host's address is then built into the loaders, which would ask the DHCP server for files otherwise.
";

fn heading(what: &str, file: &str, dir: &str, interface: &str, address: Address) -> String {
    format!(
        "{what}\
         # Run it as root, in the foreground, and watch the machines come:\n\
         #   dnsmasq --keep-in-foreground --log-facility=- --conf-file={dir}/{file}\n\
         \n\
         # The one thing to edit: the interface on the machines' network. It must have the address {address}\n\
         # (ip addr add {address} dev {interface}), or write this file anew for the one that it has:\n\
         #   cargo xtask image --pxe {dir} --interface {interface}\n\
         interface={interface}\n\
         except-interface=lo\n\
         bind-interfaces\n\
         \n\
         # No name service; leases only matter while machines boot; in no other dnsmasq's way.\n\
         port=0\n\
         no-hosts\n\
         no-resolv\n\
         leasefile-ro\n\
         pid-file\n\
         log-dhcp\n\
         \n\
         enable-tftp\n\
         tftp-root={dir}\n\
         \n",
    )
}

/// Option 93 tells the firmware apart (RFC 4578, IANA's processor architecture types).
const ARCHITECTURES: &str = "
# Client architecture (option 93): 0 is a BIOS; 7 and 9 are 64-bit UEFI, old and new numbering.
dhcp-match=set:bios,option:client-arch,0
dhcp-match=set:uefi,option:client-arch,7
dhcp-match=set:uefi,option:client-arch,9
dhcp-boot=tag:bios,bios.0
dhcp-boot=tag:uefi,uefi.efi
";

/// One service for each architecture and no prompt: the firmware takes it without asking.
fn services() -> String {
    let bios = BIOS_LOADER.trim_end_matches(".0");
    format!(
        "\n# One service for each kind of firmware and no prompt: it is booted at once. dnsmasq adds the .0 to \"{bios}\".\n\
         pxe-service=x86PC,\"Lockstep\",{bios}\n\
         pxe-service=x86-64_EFI,\"Lockstep\",{UEFI_LOADER}\n\
         pxe-service=BC_EFI,\"Lockstep\",{UEFI_LOADER}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        text.parse().unwrap()
    }

    fn range(text: &str) -> (String, String) {
        let (first, last) = address(text).range();
        (first.to_string(), last.to_string())
    }

    #[test]
    fn addresses_given_out_are_in_the_network_and_not_ours() {
        assert_eq!(range("192.168.77.1/24"), ("192.168.77.155".into(), "192.168.77.254".into()));
        assert_eq!(range("192.168.77.254/24"), ("192.168.77.1".into(), "192.168.77.100".into()));
        assert_eq!(range("10.0.0.1/29"), ("10.0.0.2".into(), "10.0.0.6".into()));
        assert_eq!(range("10.0.0.6/29"), ("10.0.0.1".into(), "10.0.0.5".into()));
        assert_eq!(range("10.0.0.3/29"), ("10.0.0.4".into(), "10.0.0.6".into()));
        for ours in 1..255 {
            let address = Address { ip: Ipv4Addr::new(10, 1, 2, ours), prefix: 24 };
            let (first, last) = address.range();
            assert!(first <= last && !(first..=last).contains(&address.ip), "{address}");
            assert_eq!(Address { ip: first, prefix: 24 }.network(), address.network());
            assert_eq!(Address { ip: last, prefix: 24 }.network(), address.network());
        }
    }

    #[test]
    fn wrong_addresses_are_refused() {
        for bad in
            ["10.0.0.1", "10.0.0.0/24", "10.0.0.255/24", "10.0.0.1/30", "10.0.0.1/0", "10.0.0.1/33", "x/24"]
        {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
        assert_eq!(address("10.9.8.7/16").network().to_string(), "10.9.0.0");
    }

    #[test]
    fn the_server_matches_both_kinds_of_firmware() {
        let text =
            configuration(Mode::Server, Path::new("/srv/pxe"), "eth7", Address::DEFAULT, true).unwrap();
        for line in [
            "interface=eth7",
            "tftp-root=/srv/pxe",
            "dhcp-range=192.168.77.155,192.168.77.254,1h",
            "dhcp-match=set:bios,option:client-arch,0",
            "dhcp-boot=tag:bios,bios.0",
            "dhcp-boot=tag:uefi,uefi.efi",
        ] {
            assert!(text.lines().any(|l| l == line), "no {line} in\n{text}");
        }
        assert!(text.contains(BIOS_LOADER) && text.contains(UEFI_LOADER));
        assert!(!text.contains("user="));
        let text =
            configuration(Mode::Server, Path::new("/root/pxe"), "eth7", Address::DEFAULT, false).unwrap();
        assert!(text.lines().any(|l| l == "user=root"));
    }

    #[test]
    fn the_proxy_gives_no_addresses() {
        let text =
            configuration(Mode::Proxy, Path::new("/srv/pxe"), "eth7", address("10.1.2.3/16"), true).unwrap();
        assert!(text.lines().any(|l| l == "dhcp-range=10.1.0.0,proxy"), "{text}");
        assert_eq!(text.matches("dhcp-range=").count(), 1);
        assert!(!text.contains("authoritative") && !text.contains("dhcp-boot"));
    }

    #[test]
    fn a_directory_that_dnsmasq_would_misread_is_refused() {
        for bad in ["relative", "/a#b", "/a,b", "/a\"b"] {
            let result = configuration(Mode::Server, Path::new(bad), "eth1", Address::DEFAULT, true);
            assert!(result.is_err(), "{bad}");
        }
    }
}
