//! `cargo xtask image`: boot media.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result};

use super::build;
use crate::image::dnsmasq::{Address, DEFAULT_INTERFACE};
use crate::image::{DEFAULT_TIMEOUT, Host, Image, Module, Pxe, Words};
use crate::run::Cmd;
use crate::{paths, ui};

/// Make boot media of the kernel: an ISO image for CD and USB stick, a directory for PXE.
///
/// Both boot on BIOS and on UEFI. Write the ISO image to a stick as it is, for instance with
/// `dd if=lockstep.iso of=/dev/sdX bs=4M`. The PXE directory has the loaders, the kernel, one file for each host, and a
/// dnsmasq configuration that works as written; docs/pxe.md has the whole story. Without --iso and --pxe the ISO image
/// goes to the target directory. The same input gives the same bytes; SOURCE_DATE_EPOCH sets the date in them.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  cargo xtask image --iso lockstep.iso --cmdline 'name=alpha log=debug'
  cargo xtask image --pxe /srv/pxe --interface eth1 --host 52:54:00:12:34:56,config=alpha.conf,name=alpha
  cargo xtask image --module disk.img:root --module notes.txt")]
pub struct Args {
    /// Write the hybrid ISO image to this file
    #[arg(long, value_name = "FILE")]
    iso: Option<PathBuf>,
    /// Write the PXE directory; files of hosts that are there already stay
    #[arg(long, value_name = "DIR")]
    pxe: Option<PathBuf>,
    /// Boot this kernel instead of building ours
    #[arg(long, value_name = "FILE")]
    kernel: Option<PathBuf>,
    /// The configuration that the kernel gets as a module
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Words for the kernel's command line
    #[arg(long, value_name = "WORDS", default_value = "", value_parser = Words::parse)]
    cmdline: Words,
    /// A module for the kernel, with words of its own; may be given more than once
    #[arg(long, value_name = "FILE[:WORDS]", value_parser = Module::parse)]
    module: Vec<Module>,
    /// How long the menu waits for a key, seconds; 0 boots at once
    #[arg(long, value_name = "SECONDS", default_value_t = DEFAULT_TIMEOUT)]
    timeout: u32,
    /// PXE: a host with settings of its own; may be given more than once
    #[arg(long, value_name = "MAC[,config=FILE][,WORD]...", requires = "pxe")]
    host: Vec<Host>,
    /// PXE: this host's interface on the machines' network [default: eth1, to be edited]
    #[arg(long, value_name = "NAME", requires = "pxe")]
    interface: Option<String>,
    /// PXE: this host's address there [default: what the interface has, else 192.168.77.1/24]
    #[arg(long, value_name = "ADDRESS/LENGTH", requires = "pxe")]
    address: Option<Address>,
}

/// Runs the verb.
///
/// # Errors
/// When the kernel does not compile, an input or a tool is missing, or a medium cannot be written.
pub fn run(args: Args) -> Result<ExitCode> {
    let kernel = args.kernel.clone().map_or_else(build::kernel, Ok)?;
    let image = Image {
        kernel,
        words: args.cmdline.clone(),
        config: args.config.clone(),
        modules: args.module.clone(),
        timeout: args.timeout,
    };
    let iso = match (&args.iso, &args.pxe) {
        (None, None) => Some(paths::out_dir()?.join("lockstep.iso")),
        (iso, _) => iso.clone(),
    };
    if let Some(iso) = &iso {
        let step = ui::step("write the ISO image");
        image.write_iso(iso)?;
        step.done();
        println!("{}", iso.display());
    }
    if let Some(dir) = &args.pxe {
        let step = ui::step("write the PXE directory");
        let pxe = pxe(&args)?;
        image.write_pxe(dir, &pxe)?;
        step.done();
        println!("{}", dir.display());
        ui::say(next_step(dir, &pxe, args.interface.is_some()));
    }
    Ok(ExitCode::SUCCESS)
}

fn pxe(args: &Args) -> Result<Pxe> {
    let interface = args.interface.clone().unwrap_or_else(|| DEFAULT_INTERFACE.into());
    let address = match (args.address, &args.interface) {
        (Some(address), _) => Some(address),
        (None, Some(interface)) => address_of(interface)?,
        (None, None) => None,
    };
    // Who names the interface or the address says that this host serves the files.
    let server = (args.interface.is_some() || args.address.is_some())
        .then_some(address.unwrap_or(Address::DEFAULT).ip);
    Ok(Pxe { interface, address: address.unwrap_or(Address::DEFAULT), server, hosts: args.host.clone() })
}

/// The first IPv4 address of an interface; none if it has none.
fn address_of(interface: &str) -> Result<Option<Address>> {
    let text =
        Cmd::new("ip").args(["-o", "-4", "addr", "show", "dev", interface]).check().with_context(|| {
            format!("cannot ask for the address of {interface}; give it as --address, like 192.168.77.1/24")
        })?;
    parse_ip_addr(&text)
}

/// Reads what `ip -o -4 addr show` says: `2: eth1    inet 10.0.0.1/24 brd 10.0.0.255 scope global eth1 ...`.
fn parse_ip_addr(text: &str) -> Result<Option<Address>> {
    let mut words = text.split_whitespace().skip_while(|&word| word != "inet");
    words.nth(1).map(str::parse).transpose()
}

/// What to do with the directory.
fn next_step(dir: &Path, pxe: &Pxe, named: bool) -> String {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    let dir = dir.display();
    let serve = format!(
        "To serve it (as root): dnsmasq --keep-in-foreground --log-facility=- --conf-file={dir}/dnsmasq.conf\n\
         Where another DHCP server is at work: the same with dnsmasq-proxy.conf. Both expect {} on interface {}.",
        pxe.address, pxe.interface
    );
    if named {
        serve
    } else {
        format!(
            "{serve}\nName the interface with --interface, or edit it in dnsmasq.conf; the proxy needs --interface."
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interface_s_own_address_is_found() {
        let text = "2: eth1    inet 10.1.2.3/16 brd 10.1.255.255 scope global eth1\\       valid_lft forever";
        assert_eq!(parse_ip_addr(text).unwrap(), Some("10.1.2.3/16".parse().unwrap()));
        assert_eq!(parse_ip_addr("").unwrap(), None);
        assert!(parse_ip_addr("2: eth1 inet 10.1.2.3/32 scope global eth1").is_err());
    }
}
