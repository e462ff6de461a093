//! `Address`: the servers that a URL names, and how the one is found among them that has the stream.

use redis::{ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError};

use crate::error::UrlError;

/// Servers of a URL.
#[derive(Clone)]
pub(crate) struct Address {
    /// Those that are named, in the order in which they are asked: at least one.
    pub(crate) named: Vec<ConnectionInfo>,
    pub(crate) way: Way,
}

/// How the server of a stream is found.
#[derive(Clone)]
pub(crate) enum Way {
    /// It is the one that is named.
    Direct,
    /// Any node of a cluster says where the stream is.
    Cluster,
    /// Sentinels say which server is the master of this name; it is connected to as `server` says, but for host and port.
    Sentinel { master: String, server: Box<ConnectionInfo> },
}

/// Port of sentinels.
const SENTINEL: u16 = 26379;

impl Address {
    pub(crate) fn of(url: &str) -> Result<Self, UrlError> {
        let Some((scheme, way, rest)) = split(url) else {
            return Ok(Self { named: vec![info_of(url)?], way: Way::Direct });
        };
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = match authority.rsplit_once('@') {
            Some((user, hosts)) => (format!("{user}@"), hosts),
            None => (String::new(), authority),
        };
        let hosts = || hosts.split(',').filter(|host| !host.is_empty());
        let named = |user: &str, database: &str| {
            let all: Result<Vec<_>, _> =
                hosts().map(|host| info_of(&format!("{scheme}://{user}{host}/{database}"))).collect();
            let all = all?;
            if all.is_empty() { Err(refused("a host must be named")) } else { Ok(all) }
        };
        if way == "cluster" {
            return Ok(Self { named: named(&user, path)?, way: Way::Cluster });
        }
        let (master, database) = path.split_once('/').unwrap_or((path, ""));
        if master.is_empty() {
            return Err(refused("the master must be named: redis+sentinel://host[,host..]/MASTER"));
        }
        // The password is that of the servers.
        let mut sentinels = named("", "")?;
        for (sentinel, host) in sentinels.iter_mut().zip(hosts()) {
            if !has_port(host) {
                let (host, _) = host_of(sentinel.addr());
                *sentinel = at(sentinel, &host, SENTINEL);
            }
        }
        let server = named(&user, database)?.swap_remove(0);
        let way = Way::Sentinel { master: master.to_owned(), server: Box::new(server) };
        Ok(Self { named: sentinels, way })
    }

    /// Returns what errors call it.
    pub(crate) fn place(&self) -> String {
        match (&self.way, self.named.first()) {
            (Way::Sentinel { master, .. }, _) => format!("master {master:?}"),
            (_, first) => first.map_or_else(String::new, |first| first.addr().to_string()),
        }
    }
}

/// Splits a URL of several servers into the scheme of one, the kind, and the rest.
fn split(url: &str) -> Option<(&str, &str, &str)> {
    let (scheme, rest) = url.split_once("://")?;
    let (scheme, way) = scheme.split_once('+')?;
    (["redis", "rediss"].contains(&scheme) && ["cluster", "sentinel"].contains(&way))
        .then_some((scheme, way, rest))
}

fn has_port(host: &str) -> bool {
    host.rsplit_once(':').is_some_and(|(before, port)| !before.ends_with(':') && port.parse::<u16>().is_ok())
}

fn info_of(url: &str) -> Result<ConnectionInfo, UrlError> {
    url.into_connection_info().map_err(|error: RedisError| UrlError {
        reason: error.detail().map_or_else(|| error.category().to_owned(), str::to_owned),
    })
}

fn refused(why: &str) -> UrlError {
    UrlError { reason: why.to_owned() }
}

/// Returns host and port of an address.
pub(crate) fn host_of(address: &ConnectionAddr) -> (String, u16) {
    match address {
        ConnectionAddr::Tcp(host, port) | ConnectionAddr::TcpTls { host, port, .. } => (host.clone(), *port),
        _ => (String::new(), 0),
    }
}

/// Returns how to connect to another host: as to this one.
pub(crate) fn at(like: &ConnectionInfo, host: &str, port: u16) -> ConnectionInfo {
    let host = host.to_owned();
    let address = match like.addr() {
        ConnectionAddr::TcpTls { insecure, tls_params, .. } => {
            ConnectionAddr::TcpTls { host, port, insecure: *insecure, tls_params: tls_params.clone() }
        }
        _ => ConnectionAddr::Tcp(host, port),
    };
    like.clone().set_addr(address)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    fn hosts(address: &Address) -> Vec<String> {
        address.named.iter().map(|info| info.addr().to_string()).collect()
    }

    #[test]
    fn a_url_may_name_several_servers() {
        let cluster = Address::of("redis+cluster://u:p@a:7000,b,c:7002").unwrap();
        assert!(matches!(cluster.way, Way::Cluster));
        assert_eq!(hosts(&cluster), ["a:7000", "b:6379", "c:7002"]);
        assert!(cluster.named.iter().all(|info| info.redis_settings().password() == Some("p")));
        let sentinel = Address::of("redis+sentinel://:p@a,b:5000/mymaster/3").unwrap();
        assert_eq!(hosts(&sentinel), ["a:26379", "b:5000"]);
        assert!(sentinel.named.iter().all(|info| info.redis_settings().password().is_none()));
        assert_eq!(sentinel.place(), "master \"mymaster\"");
        let Way::Sentinel { master, server } = &sentinel.way else { unreachable!() };
        assert_eq!((&**master, server.redis_settings().db()), ("mymaster", 3));
        assert_eq!(server.redis_settings().password(), Some("p"));
        let direct = Address::of("redis://a/1").unwrap();
        assert!(matches!(direct.way, Way::Direct) && direct.place() == "a:6379");
    }

    #[test]
    fn a_url_of_several_servers_without_one_is_refused() {
        for url in [
            "redis+cluster://",
            "redis+sentinel://a",
            "redis+sentinel:///m",
            "redis+other://a",
            "redis+cluster://a:x",
        ] {
            assert!(Address::of(url).is_err(), "{url}");
        }
    }
}
