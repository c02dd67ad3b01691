//! Datagrams with the address that they were sent to (`IP_PKTINFO`, ip(7); `IPV6_PKTINFO`, RFC 3542): a socket bound to all of
//! a host's addresses can answer from the one that was asked.

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

/// Room for one control message, aligned as control messages have to be.
#[repr(C, align(8))]
struct Control([u8; 128]);

/// Where a datagram came from and went to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrived {
    /// Bytes of it in the buffer; what was longer than that is lost.
    pub length: usize,
    /// Who sent it.
    pub from: SocketAddr,
    /// Which address it was sent to.
    pub to: IpAddr,
}

/// Lets [`receive`] know the addresses that datagrams were sent to; `v6` is the socket's family.
pub fn enable(socket: impl AsFd, v6: bool) -> io::Result<()> {
    let on: libc::c_int = 1;
    let (level, option) = match v6 {
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
    };
    // SAFETY: the option's value is an integer that outlives the call, and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a datagram from a socket for which [`enable`] was called; it does not wait.
pub fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<Arrived> {
    // SAFETY: all-zero bytes are valid values of these C structures.
    let (mut name, mut header): (libc::sockaddr_in6, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    let mut control = Control([0; 128]);
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    header.msg_controllen = control.0.len() as _;
    // SAFETY: the header points to buffers that are valid, writable and as long as it says, for the whole call.
    let length = unsafe { libc::recvmsg(socket.as_fd().as_raw_fd(), &raw mut header, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let to = destination(&header)
        .ok_or_else(|| io::Error::other("a datagram without the address that it was sent to"))?;
    Ok(Arrived { length, from: sender(&name)?, to })
}

/// The address in a name that has room for either family's.
fn sender(name: &libc::sockaddr_in6) -> io::Result<SocketAddr> {
    let port = u16::from_be(name.sin6_port);
    match libc::c_int::from(name.sin6_family) {
        libc::AF_INET6 => {
            let address = Ipv6Addr::from(name.sin6_addr.s6_addr);
            Ok(SocketAddrV6::new(address, port, name.sin6_flowinfo, name.sin6_scope_id).into())
        }
        // Family and port are where they are in the other structure, and the address follows them (ip(7)).
        libc::AF_INET => Ok((Ipv4Addr::from(name.sin6_flowinfo.to_ne_bytes()), port).into()),
        _ => Err(io::Error::other("a datagram of another family")),
    }
}

/// The address in the control messages that the kernel has filled in.
fn destination(header: &libc::msghdr) -> Option<IpAddr> {
    let mut to = None;
    // SAFETY: the header's control messages and their length are as the kernel left them, in a buffer that outlives it; the
    // macros stay within it, and the data is read unaligned only where its whole length is there.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(header);
        while !message.is_null() {
            let kind = ((*message).cmsg_level, (*message).cmsg_type);
            let has = |size: usize| (*message).cmsg_len as usize >= libc::CMSG_LEN(size as u32) as usize;
            if kind == (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) && has(size_of::<libc::in6_pktinfo>()) {
                let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            if kind == (libc::IPPROTO_IP, libc::IP_PKTINFO) && has(size_of::<libc::in_pktinfo>()) {
                let info: libc::in_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                to = Some(Ipv4Addr::from(info.ipi_addr.s_addr.to_ne_bytes()).into());
            }
            message = libc::CMSG_NXTHDR(header, message);
        }
    }
    to
}

/// Sends a datagram to `to`, with the source address `from`, which is of the same family; it does not wait.
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddr, from: IpAddr) -> io::Result<()> {
    match (to, from) {
        (SocketAddr::V6(to), IpAddr::V6(from)) => {
            // SAFETY: all-zero bytes are a valid value of this C structure.
            let mut name: libc::sockaddr_in6 = unsafe { zeroed() };
            name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            name.sin6_port = to.port().to_be();
            name.sin6_addr.s6_addr = to.ip().octets();
            name.sin6_scope_id = to.scope_id();
            let info = libc::in6_pktinfo {
                ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
                // An address of a link needs its link, which is that of whom it answers.
                ipi6_ifindex: to.scope_id(),
            };
            send_with(socket, bytes, name, (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO), info)
        }
        (SocketAddr::V4(to), IpAddr::V4(from)) => {
            // SAFETY: all-zero bytes are a valid value of this C structure.
            let mut name: libc::sockaddr_in = unsafe { zeroed() };
            name.sin_family = libc::AF_INET as libc::sa_family_t;
            name.sin_port = to.port().to_be();
            name.sin_addr.s_addr = u32::from_ne_bytes(to.ip().octets());
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(from.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send_with(socket, bytes, name, (libc::IPPROTO_IP, libc::IP_PKTINFO), info)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// Sends to a socket address, with one control message; both are plain C structures.
fn send_with<Name: Copy, Info: Copy>(
    socket: impl AsFd,
    bytes: &[u8],
    mut name: Name,
    (level, kind): (libc::c_int, libc::c_int),
    info: Info,
) -> io::Result<()> {
    const { assert!(size_of::<Info>() + 2 * size_of::<libc::cmsghdr>() <= size_of::<Control>()) };
    // SAFETY: all-zero bytes are a valid value of this C structure.
    let mut header: libc::msghdr = unsafe { zeroed() };
    let mut control = Control([0; 128]);
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = size_of::<Name>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the buffer has room for one control message of this size (asserted above), is aligned for it and outlives the
    // call; sendmsg only reads what the header points to.
    let sent = unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<Info>() as u32) as _;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = level;
        (*message).cmsg_type = kind;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<Info>() as u32) as _;
        ptr::write_unaligned(libc::CMSG_DATA(message).cast(), info);
        let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
        libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const header, flags)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    #[test]
    fn a_datagram_is_answered_from_the_address_it_was_sent_to() {
        for (any, asked) in [("[::]:0", "::1"), ("0.0.0.0:0", "127.0.0.9")] {
            let server = UdpSocket::bind(any).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            enable(&server, asked.is_ipv6()).unwrap();
            let port = server.local_addr().unwrap().port();
            let client = UdpSocket::bind(any).unwrap();
            client.connect((asked, port)).unwrap();
            client.send(b"hello").unwrap();
            let mut buffer = [0; 16];
            let arrived = receive(&server, &mut buffer).unwrap();
            assert_eq!((&buffer[..arrived.length], arrived.to), (&b"hello"[..], asked));
            assert_eq!(arrived.from, client.local_addr().unwrap());
            send(&server, b"there", arrived.from, arrived.to).unwrap();
            assert_eq!(
                client.recv(&mut buffer).unwrap(),
                5,
                "the client is connected: from there, or not at all"
            );
            let nothing = receive(&server, &mut buffer).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
        }
    }

    #[test]
    fn families_do_not_mix() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let mixed = send(&socket, b"", socket.local_addr().unwrap(), Ipv6Addr::LOCALHOST.into());
        assert_eq!(mixed.unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
