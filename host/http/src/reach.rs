//! Which addresses may be connected to.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::error::{Error, ErrorKind, Result};

/// Which addresses may be connected to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// All of them.
    #[default]
    Everything,
    /// Those of the public internet: neither this machine nor its links (the metadata services of
    /// clouds lie there) nor private networks. Of a name that has addresses of both kinds the public
    /// ones remain. Behind a proxy the proxy connects: addresses in URLs are checked, and names as far
    /// as they can be looked up here, but where a name leads from there is the proxy's to decide.
    Public,
}

impl Reach {
    /// Checks the host of a URL as far as that can be done without looking it up.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfReach`] if it may not be reached.
    pub fn check(self, url: &Url) -> Result<()> {
        let host = url.host_str().unwrap_or_default();
        self.check_host(host)
    }

    fn check_host(self, host: &str) -> Result<()> {
        let denied = match address(host) {
            Some(address) => !self.allows(address),
            None => self == Reach::Public && is_local_name(host),
        };
        if denied { Err(forbidden(host).into()) } else { Ok(()) }
    }

    /// The addresses of a host that may be reached.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfReach`] if there are none but those; the inner error if there are none.
    pub(crate) async fn look_up(
        self,
        host: &str,
        port: u16,
        lookup: Option<&Lookup>,
    ) -> Result<io::Result<Vec<SocketAddr>>> {
        self.check_host(host)?;
        let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
        let found = match addresses(bare, lookup).await {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        let allowed: Vec<SocketAddr> = found
            .into_iter()
            .filter(|at| self.allows(*at))
            .map(|at| SocketAddr::new(at, port))
            .collect();
        if allowed.is_empty() { Err(forbidden(host).into()) } else { Ok(Ok(allowed)) }
    }

    fn allows(self, address: IpAddr) -> bool {
        self == Reach::Everything || !(is_own(address) || is_private(address))
    }

    /// Whether all addresses of a name that can be looked up in a moment are such that may not be
    /// reached.
    pub(crate) async fn leads_inside(self, name: &str, lookup: Option<&Lookup>) -> bool {
        if address(name).is_some() {
            return false;
        }
        let found = tokio::time::timeout(LOOKUP_PATIENCE, addresses(name, lookup)).await;
        match found {
            Ok(Ok(found)) if !found.is_empty() => !found.into_iter().any(|at| self.allows(at)),
            _ => false,
        }
    }
}

/// How long a look-up may take whose answer another will look up again.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(2);

type Find = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Looks names up in place of the system. Asked at each connection, as the system is.
#[derive(Clone)]
pub struct Lookup(Arc<Find>);

impl Lookup {
    /// One that answers with what `find` finds.
    pub fn new(find: impl Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync + 'static) -> Self {
        Lookup(Arc::new(find))
    }
}

impl std::fmt::Debug for Lookup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lookup(..)")
    }
}

async fn addresses(name: &str, lookup: Option<&Lookup>) -> io::Result<Vec<IpAddr>> {
    match lookup {
        Some(lookup) => (lookup.0)(name),
        None => Ok(tokio::net::lookup_host((name, 0)).await?.map(|found| found.ip()).collect()),
    }
}

/// The address that a URL's host is, if it is one.
pub(crate) fn address(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|h| h.strip_suffix(']')).unwrap_or(host);
    bare.parse::<IpAddr>().ok().map(unmapped)
}

/// An IPv4 address that was written as an IPv6 one, or that packets to one end at: mapped and
/// compatible addresses (RFC 4291, 2.5.5), translation (RFC 6052, 2.1), 6to4 (RFC 3056) and Teredo
/// (RFC 4380).
fn unmapped(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    if let Some(v4) = v6.to_ipv4_mapped() {
        return IpAddr::V4(v4);
    }
    let v4 =
        |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] | [0, 0, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        [0x2001, 0, .., high, low] => v4(!high, !low),
        _ => address,
    }
}

fn is_local_name(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host.eq_ignore_ascii_case("localhost") || host.to_ascii_lowercase().ends_with(".localhost")
}

/// Whether a host is this machine. Names are not looked up: only `localhost` counts.
pub fn is_loopback(host: &str) -> bool {
    match address(host) {
        Some(address) => address.is_loopback(),
        None => host.eq_ignore_ascii_case("localhost"),
    }
}

/// Whether a host is one at which nobody offers anything to others: this machine, its links, nobody
/// and everybody. Names are not looked up.
pub fn is_inner(host: &str) -> bool {
    address(host).map_or_else(|| is_local_name(host), is_own)
}

fn is_own(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(v4) => {
            v4.is_loopback()
                || v4.is_link_local()
                || v4.is_unspecified()
                || v4.is_multicast()
                || v4.is_broadcast()
                || v4.octets()[0] == 0
        }
        IpAddr::V6(v6) => {
            v6.is_loopback()
                || v6.is_unspecified()
                || v6.is_multicast()
                || v6.is_unicast_link_local()
                // The metadata service of one cloud in its own unique local range.
                || v6 == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}

/// Networks that are somebody's own (RFC 1918, RFC 6598, RFC 4193), of protocols (RFC 6890), for
/// measuring (RFC 2544), and those that nobody has yet.
fn is_private(address: IpAddr) -> bool {
    match unmapped(address) {
        IpAddr::V4(v4) => {
            let octets = v4.octets();
            v4.is_private()
                || (octets[0] == 100 && octets[1] & 0xc0 == 64)
                || (octets[0] == 192 && octets[1] == 0 && octets[2] == 0)
                || (octets[0] == 198 && octets[1] & 0xfe == 18)
                || octets[0] >= 240
        }
        // Deprecated site-local addresses (RFC 3879) may still be routed inside, and what a network
        // translates for itself (RFC 8215) leads to its own.
        IpAddr::V6(v6) => {
            v6.is_unique_local()
                || v6.segments()[0] & 0xffc0 == 0xfec0
                || v6.segments()[..3] == [0x64, 0xff9b, 1]
        }
    }
}

/// A host that may not be reached, as it travels through the HTTP client.
#[derive(Debug, thiserror::Error)]
#[error("{0} is, or leads to, an address of this machine or of a private network")]
pub(crate) struct Forbidden(String);

pub(crate) fn forbidden(host: &str) -> Forbidden {
    Forbidden(host.chars().take(260).flat_map(char::escape_debug).collect())
}

impl From<Forbidden> for Error {
    fn from(forbidden: Forbidden) -> Self {
        Error::new(ErrorKind::OutOfReach, forbidden.to_string())
    }
}

/// Looks names up and leaves out what may not be reached.
pub(crate) struct Resolver {
    pub(crate) reach: Reach,
    /// Hosts of proxies: the caller chose them, and proxies of companies lie in private networks.
    pub(crate) proxies: Vec<String>,
    pub(crate) lookup: Option<Lookup>,
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let chosen = self.proxies.iter().any(|proxy| proxy.eq_ignore_ascii_case(name.as_str()));
        let reach = if chosen { Reach::Everything } else { self.reach };
        let lookup = self.lookup.clone();
        Box::pin(async move {
            match reach.look_up(name.as_str(), 0, lookup.as_ref()).await {
                Ok(found) => Ok(Box::new(found?.into_iter()) as Addrs),
                // Found again by `transport_error` among the causes of what the client reports.
                Err(_) => Err(forbidden(name.as_str()).into()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_addresses_are_known_in_every_spelling() {
        for url in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.0.0.1/",
            "http://0177.0.0.1/",
            "http://127.255.255.254:8080/",
            "http://0.0.0.0/",
            "http://0/",
            "http://localhost/",
            "http://LOCALHOST./",
            "http://a.localhost/",
            "http://169.254.169.254/latest/meta-data/",
            "http://169.254.170.2/",
            "http://0xa9fea9fe/",
            "http://10.0.0.1/",
            "http://10.255.255.255/",
            "http://172.16.0.1/",
            "http://172.31.255.255/",
            "http://192.168.1.1/",
            "http://100.64.0.1/",
            "http://100.127.255.255/",
            "http://192.0.0.192/",
            "http://198.18.0.1/",
            "http://198.19.255.255/",
            "http://224.0.0.1/",
            "http://240.0.0.1/",
            "http://255.255.255.255/",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:a9fe:a9fe]/",
            "http://[0:0:0:0:0:ffff:10.1.2.3]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[64:ff9b:1::1]/",
            "http://[::127.0.0.1]/",
            "http://[2002:7f00:1::]/",
            "http://[2001::80ff:fffe]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://[fc00::1]/",
            "http://[fdff::1]/",
            "http://[fec0::1]/",
            "http://[ff02::1]/",
        ] {
            let parsed = Url::parse(url).expect("a URL");
            let error = Reach::Public.check(&parsed).expect_err(url);
            assert_eq!(error.kind, ErrorKind::OutOfReach, "{url}");
            Reach::Everything.check(&parsed).expect(url);
        }
    }

    #[test]
    fn public_addresses_and_names_pass() {
        for url in [
            "https://example.org/",
            "https://localhost.example.org/",
            "https://notlocalhost/",
            "https://1.1.1.1/",
            "https://9.255.255.255/",
            "https://11.0.0.0/",
            "https://100.63.255.255/",
            "https://100.128.0.0/",
            "https://169.253.1.1/",
            "https://172.15.255.255/",
            "https://172.32.0.0/",
            "https://192.0.1.1/",
            "https://192.167.1.1/",
            "https://198.17.1.1/",
            "https://198.20.1.1/",
            "https://223.255.255.255/",
            "https://[2606:4700::1111]/",
            "https://[::ffff:1.1.1.1]/",
            "https://[64:ff9b::101:101]/",
            "https://[2002:101:101::1]/",
            "https://[2001:4860:4860::8888]/",
        ] {
            Reach::Public.check(&Url::parse(url).expect("a URL")).expect(url);
        }
    }

    #[tokio::test]
    async fn names_that_lead_inside_are_refused_when_they_are_looked_up() {
        let name = || "localhost".parse::<Name>().expect("a name");
        let resolver = |reach, proxies| Resolver { reach, proxies, lookup: None };
        let found = resolver(Reach::Public, vec![]).resolve(name()).await;
        let error = found.map(|_| ()).expect_err("refused");
        assert!(error.downcast_ref::<Forbidden>().is_some(), "{error}");
        for (reach, proxies) in
            [(Reach::Everything, vec![]), (Reach::Public, vec!["localhost".to_owned()])]
        {
            assert!(resolver(reach, proxies).resolve(name()).await.is_ok());
        }
    }
}
