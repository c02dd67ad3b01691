//! Datagrams by IPv6 with the address that they were sent to (`IPV6_PKTINFO`, RFC 3542): a socket bound to all of a host's
//! addresses can answer from the one that was asked.

use std::io;
use std::mem::{size_of, size_of_val, zeroed};
use std::net::{Ipv6Addr, SocketAddrV6};
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
    pub from: SocketAddrV6,
    /// Which address it was sent to.
    pub to: Ipv6Addr,
}

/// Lets [`receive`] know the addresses that datagrams were sent to.
pub fn enable(socket: impl AsFd) -> io::Result<()> {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is an integer that outlives the call, and its size is given.
    let outcome = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_RECVPKTINFO,
            ptr::from_ref(&on).cast(),
            size_of_val(&on) as libc::socklen_t,
        )
    };
    if outcome == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes a datagram from an IPv6 socket for which [`enable`] was called; it does not wait.
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
    if name.sin6_family != libc::AF_INET6 as libc::sa_family_t {
        return Err(io::Error::other("a datagram of another family"));
    }
    let mut to = None;
    // SAFETY: the kernel has filled in the control messages and their length; the macros stay within it, and the data is
    // read unaligned only where its whole length is there.
    unsafe {
        let mut message = libc::CMSG_FIRSTHDR(&raw const header);
        while !message.is_null() {
            let needed = libc::CMSG_LEN(size_of::<libc::in6_pktinfo>() as u32) as usize;
            let is_info =
                (*message).cmsg_level == libc::IPPROTO_IPV6 && (*message).cmsg_type == libc::IPV6_PKTINFO;
            if is_info && (*message).cmsg_len as usize >= needed {
                let info: libc::in6_pktinfo = ptr::read_unaligned(libc::CMSG_DATA(message).cast());
                to = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
            }
            message = libc::CMSG_NXTHDR(&raw const header, message);
        }
    }
    let from = Ipv6Addr::from(name.sin6_addr.s6_addr);
    let from = SocketAddrV6::new(from, u16::from_be(name.sin6_port), name.sin6_flowinfo, name.sin6_scope_id);
    let to = to.ok_or_else(|| io::Error::other("a datagram without the address that it was sent to"))?;
    Ok(Arrived { length, from, to })
}

/// Sends a datagram to `to`, with the source address `from`; it does not wait.
pub fn send(socket: impl AsFd, bytes: &[u8], to: SocketAddrV6, from: Ipv6Addr) -> io::Result<()> {
    // SAFETY: all-zero bytes are valid values of these C structures.
    let (mut name, mut header): (libc::sockaddr_in6, libc::msghdr) = unsafe { (zeroed(), zeroed()) };
    name.sin6_family = libc::AF_INET6 as libc::sa_family_t;
    name.sin6_port = to.port().to_be();
    name.sin6_addr.s6_addr = to.ip().octets();
    name.sin6_scope_id = to.scope_id();
    let mut control = Control([0; 128]);
    let info = libc::in6_pktinfo {
        ipi6_addr: libc::in6_addr { s6_addr: from.octets() },
        // An address of a link needs its link, which is that of whom it answers.
        ipi6_ifindex: to.scope_id(),
    };
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    header.msg_name = ptr::from_mut(&mut name).cast();
    header.msg_namelen = size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    header.msg_iov = &raw mut part;
    header.msg_iovlen = 1;
    header.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: the buffer has room for one control message of this size, is aligned for it and outlives the call; sendmsg
    // only reads what the header points to.
    let sent = unsafe {
        header.msg_controllen = libc::CMSG_SPACE(size_of::<libc::in6_pktinfo>() as u32) as _;
        let message = libc::CMSG_FIRSTHDR(&raw const header);
        (*message).cmsg_level = libc::IPPROTO_IPV6;
        (*message).cmsg_type = libc::IPV6_PKTINFO;
        (*message).cmsg_len = libc::CMSG_LEN(size_of::<libc::in6_pktinfo>() as u32) as _;
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
        let server = UdpSocket::bind("[::]:0").unwrap();
        enable(&server).unwrap();
        let port = server.local_addr().unwrap().port();
        let client = UdpSocket::bind("[::1]:0").unwrap();
        client.connect(("::1", port)).unwrap();
        client.send(b"hello").unwrap();
        let mut buffer = [0; 16];
        let arrived = receive(&server, &mut buffer).unwrap();
        assert_eq!((&buffer[..arrived.length], arrived.to), (&b"hello"[..], Ipv6Addr::LOCALHOST));
        send(&server, b"there", arrived.from, arrived.to).unwrap();
        assert_eq!(client.recv(&mut buffer).unwrap(), 5);
        let nothing = receive(&server, &mut buffer).unwrap_err();
        assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
    }
}
