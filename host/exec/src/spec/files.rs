//! The system files a step sees instead of its image's: `/etc/hosts`, `/etc/resolv.conf`,
//! `/etc/hostname`.
//!
//! Pure text in, text out: the same request gives the same files.

use std::net::IpAddr;

use wbuild_graph::Failure;

/// Used where the machine's resolv.conf names no server that a container can reach.
const FALLBACK_SERVERS: [&str; 2] = ["8.8.8.8", "8.8.4.4"];

/// Builds `/etc/hosts` (hosts(5)): loopback, the step's own name, then `added` in order.
pub fn hosts(hostname: &str, added: &[(String, String)]) -> Result<String, Failure> {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n\
         fe00::0\tip6-localnet\nff00::0\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    if !hostname.is_empty() {
        check_name(hostname)?;
        text.push_str(&format!("127.0.0.1\t{hostname}\n"));
    }
    for (name, address) in added {
        check_name(name)?;
        let parsed: IpAddr = address.trim_matches(['[', ']']).parse().map_err(|_| {
            Failure::invalid(format!("invalid address {address:?} of the added host {name:?}"))
                .hint("give an IPv4 or IPv6 address")
        })?;
        text.push_str(&format!("{parsed}\t{name}\n"));
    }
    Ok(text)
}

/// A name must not be able to add lines or further names to the file.
fn check_name(name: &str) -> Result<(), Failure> {
    let bad = name.is_empty()
        || name.len() > 253
        || name.chars().any(|c| c.is_whitespace() || c.is_control() || c == '#');
    if bad { Err(Failure::invalid(format!("invalid host name {name:?}"))) } else { Ok(()) }
}

/// Builds `/etc/hostname`.
pub fn hostname(hostname: &str) -> Result<String, Failure> {
    check_name(hostname)?;
    Ok(format!("{hostname}\n"))
}

/// Reduces the machine's resolv.conf (resolv.conf(5)) to what makes sense in a container:
/// `nameserver`, `search`, `domain` and `options` lines that parse.
///
/// With `own_network` (the step does not share the machine's network) servers on a loopback address
/// are dropped, since nothing listens there, and public ones stand in when none is left.
pub fn resolv_conf(host: &str, own_network: bool) -> String {
    let mut text = String::new();
    let mut servers = 0;
    for line in host.lines() {
        let line = line.split(['#', ';']).next().unwrap_or("").trim();
        let mut words = line.split_ascii_whitespace();
        match words.next() {
            Some("nameserver") => {
                let Some(server) = words.next() else { continue };
                // An IPv6 address may carry a zone, which names a link of the machine.
                let Ok(address) = server.split('%').next().unwrap_or("").parse::<IpAddr>() else {
                    continue;
                };
                let reachable = !own_network || !(address.is_loopback() || server.contains('%'));
                if reachable {
                    text.push_str(&format!("nameserver {server}\n"));
                    servers += 1;
                }
            }
            Some(word @ ("search" | "domain" | "options")) => {
                let rest: Vec<&str> = words.collect();
                if !rest.is_empty() {
                    text.push_str(&format!("{word} {}\n", rest.join(" ")));
                }
            }
            _ => {}
        }
    }
    if servers == 0 && own_network {
        for server in FALLBACK_SERVERS {
            text.push_str(&format!("nameserver {server}\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_lists_added_names_and_refuses_injection() {
        let added =
            [("db".to_owned(), "10.0.0.7".to_owned()), ("six".to_owned(), "[::7]".to_owned())];
        let text = hosts("box", &added).unwrap();
        assert!(text.contains("127.0.0.1\tlocalhost\n") && text.contains("127.0.0.1\tbox\n"));
        assert!(text.ends_with("10.0.0.7\tdb\n::7\tsix\n"), "{text}");
        for (name, address) in [
            ("a\nb", "1.2.3.4"),
            ("a b", "1.2.3.4"),
            ("", "1.2.3.4"),
            ("a", "host"),
            ("a", "1.2.3.4\n5"),
        ] {
            assert!(
                hosts("", &[(name.to_owned(), address.to_owned())]).is_err(),
                "{name:?} {address:?}"
            );
        }
        assert!(hosts("a\nb", &[]).is_err());
        assert!(hostname("a b").is_err());
    }

    #[test]
    fn resolv_conf_keeps_what_a_container_can_use() {
        let host = "# made by a tool\nnameserver 127.0.0.53\nnameserver 10.1.1.1 ; office\nnameserver fe80::1%eth0\n\
            nameserver nonsense\nsearch corp.example example\noptions edns0 trust-ad\nsortlist 1.2.3.4\n";
        assert_eq!(
            resolv_conf(host, false),
            "nameserver 127.0.0.53\nnameserver 10.1.1.1\nnameserver fe80::1%eth0\nsearch corp.example example\noptions edns0 trust-ad\n"
        );
        assert_eq!(
            resolv_conf(host, true),
            "nameserver 10.1.1.1\nsearch corp.example example\noptions edns0 trust-ad\n"
        );
        assert_eq!(
            resolv_conf("nameserver 127.0.0.1\n", true),
            "nameserver 8.8.8.8\nnameserver 8.8.4.4\n"
        );
        assert_eq!(resolv_conf("", false), "");
    }
}
