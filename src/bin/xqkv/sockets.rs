//! Collectives of processes of one machine, over a Unix socket for each pair of them: what an
//! engine gives xqkv_comm_create_collectives, with nothing but the standard library under it.
//!
//! Every byte that goes to a rank is in one queue and every byte that comes from it in another, so
//! transfers match by their order. Nothing moves but in `poll`, which never waits.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use xqkv::capi::collectives::{xqkv_collectives, xqkv_message};
use xqkv::error::Status;

/// One rank's sockets to all others.
pub struct Mesh {
    rank: usize,
    peers: Mutex<Vec<Option<Peer>>>,
}

struct Peer {
    socket: UnixStream,
    to_send: VecDeque<Bytes>,
    to_receive: VecDeque<Bytes>,
}

/// What is left of one message, at an address of this process.
struct Bytes {
    address: usize,
    count: usize,
}

/// A rank that is gone.
pub struct Lost(pub usize);

impl Mesh {
    /// A mesh for each of so many ranks.
    pub fn all(rank_count: usize) -> std::io::Result<Vec<Mesh>> {
        let mut rows: Vec<Vec<Option<UnixStream>>> = Vec::new();
        for rank in 0..rank_count {
            let mut row = Vec::new();
            for before in &mut rows {
                let (mine, theirs) = UnixStream::pair()?;
                before.push(Some(theirs));
                row.push(Some(mine));
            }
            debug_assert_eq!(row.len(), rank);
            row.push(None);
            rows.push(row);
        }
        rows.into_iter().enumerate().map(|(rank, row)| Mesh::new(rank, row)).collect()
    }

    /// The mesh of a rank that inherited these sockets, in the order of ranks without its own.
    ///
    /// # Safety
    /// The descriptors are sockets, and nobody else's.
    pub unsafe fn inherited(rank: usize, descriptors: &[RawFd]) -> std::io::Result<Mesh> {
        // SAFETY: the caller's promise.
        let socket = |&descriptor: &RawFd| unsafe { OwnedFd::from_raw_fd(descriptor) };
        let mut row: Vec<Option<UnixStream>> =
            descriptors.iter().map(socket).map(|socket| Some(socket.into())).collect();
        row.insert(rank, None);
        Mesh::new(rank, row)
    }

    fn new(rank: usize, row: Vec<Option<UnixStream>>) -> std::io::Result<Mesh> {
        let peer = |socket: Option<UnixStream>| {
            socket.map(|socket| {
                socket.set_nonblocking(true)?;
                let (to_send, to_receive) = Default::default();
                Ok(Peer { socket, to_send, to_receive })
            })
        };
        let peers: std::io::Result<Vec<_>> =
            row.into_iter().map(|socket| peer(socket).transpose()).collect();
        Ok(Mesh { rank, peers: Mutex::new(peers?) })
    }

    /// The sockets' descriptors, for a process that inherits them.
    pub fn descriptors(&self) -> Vec<RawFd> {
        let peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.iter().flatten().map(|peer| peer.socket.as_raw_fd()).collect()
    }

    /// What the library calls; the mesh must stay where it is for as long as it does.
    pub fn collectives(&self) -> xqkv_collectives {
        xqkv_collectives {
            struct_size: size_of::<xqkv_collectives>() as u32,
            reserved: 0,
            all_gather: Some(all_gather),
            broadcast: Some(broadcast),
            exchange: Some(exchange),
            poll: Some(poll),
            abort: Some(abort),
            user: std::ptr::from_ref(self).cast_mut().cast(),
        }
    }

    fn with_peer(&self, rank: usize, act: impl FnOnce(&mut Peer)) {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get_mut(rank).and_then(Option::as_mut) {
            act(peer);
        }
    }

    fn send(&self, rank: usize, address: usize, count: usize) {
        self.with_peer(rank, |peer| peer.to_send.push_back(Bytes { address, count }));
    }

    fn receive(&self, rank: usize, address: usize, count: usize) {
        self.with_peer(rank, |peer| peer.to_receive.push_back(Bytes { address, count }));
    }

    /// Starts to send everybody's bytes to everybody.
    pub fn gather(&self, buffer: usize, bytes: &[usize]) {
        let own = buffer + bytes[..self.rank].iter().sum::<usize>();
        let mut address = buffer;
        for (rank, &count) in bytes.iter().enumerate() {
            self.send(rank, own, bytes[self.rank]);
            self.receive(rank, address, count);
            address += count;
        }
    }

    /// Moves what can be moved now. Whom it waits for then, or None if all is done.
    pub fn progress(&self) -> Result<Option<usize>, Lost> {
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut waits_for = None;
        for (rank, peer) in peers.iter_mut().enumerate() {
            let Some(peer) = peer else { continue };
            peer.progress().map_err(|()| Lost(rank))?;
            if !(peer.to_send.is_empty() && peer.to_receive.is_empty()) {
                waits_for.get_or_insert(rank);
            }
        }
        Ok(waits_for)
    }

    fn shut(&self) {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

impl Peer {
    fn progress(&mut self) -> Result<(), ()> {
        let socket = &self.socket;
        let write = |bytes: &Bytes| {
            // SAFETY: the library promises that the memory is there until the transfer is done.
            let bytes =
                unsafe { std::slice::from_raw_parts(bytes.address as *const u8, bytes.count) };
            (&mut &*socket).write(bytes)
        };
        drain(&mut self.to_send, write)?;
        let read = |bytes: &Bytes| {
            // SAFETY: as above, and nobody else touches it.
            let bytes =
                unsafe { std::slice::from_raw_parts_mut(bytes.address as *mut u8, bytes.count) };
            (&mut &*socket).read(bytes)
        };
        drain(&mut self.to_receive, read)
    }
}

/// Moves from the front of a queue until nothing moves at the moment.
fn drain(
    queue: &mut VecDeque<Bytes>,
    step: impl Fn(&Bytes) -> std::io::Result<usize>,
) -> Result<(), ()> {
    while let Some(bytes) = queue.front_mut() {
        if bytes.count > 0 {
            match step(bytes) {
                Ok(0) => return Err(()),
                Ok(moved) => {
                    (bytes.address, bytes.count) = (bytes.address + moved, bytes.count - moved)
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => return Err(()),
            }
        }
        if bytes.count == 0 {
            queue.pop_front();
        }
    }
    Ok(())
}

/// # Safety
/// `user` is a mesh's address.
unsafe fn mesh<'a>(user: *mut c_void) -> &'a Mesh {
    // SAFETY: the caller's promise.
    unsafe { &*user.cast() }
}

/// As xqkv_all_gather_callback.
pub unsafe extern "C" fn all_gather(
    buffer: *mut c_void,
    bytes: *const i64,
    rank_count: i64,
    _stream: *mut c_void,
    user: *mut c_void,
) -> i32 {
    // SAFETY: the library calls it with the mesh and a number for each rank.
    let (mesh, bytes) =
        unsafe { (mesh(user), std::slice::from_raw_parts(bytes, rank_count as usize)) };
    mesh.gather(buffer as usize, &bytes.iter().map(|&bytes| bytes as usize).collect::<Vec<_>>());
    Status::Ok as i32
}

/// As xqkv_broadcast_callback.
pub unsafe extern "C" fn broadcast(
    buffer: *mut c_void,
    bytes: i64,
    root: i64,
    _stream: *mut c_void,
    user: *mut c_void,
) -> i32 {
    // SAFETY: the library calls it with the mesh.
    let mesh = unsafe { mesh(user) };
    if root as usize != mesh.rank {
        mesh.receive(root as usize, buffer as usize, bytes as usize);
        return Status::Ok as i32;
    }
    let count = mesh.peers.lock().unwrap_or_else(PoisonError::into_inner).len();
    (0..count).for_each(|rank| mesh.send(rank, buffer as usize, bytes as usize));
    Status::Ok as i32
}

/// As xqkv_exchange_callback.
pub unsafe extern "C" fn exchange(
    messages: *const xqkv_message,
    count: i64,
    _stream: *mut c_void,
    user: *mut c_void,
) -> i32 {
    if count == 0 {
        return Status::Ok as i32;
    }
    // SAFETY: the library calls it with the mesh and so many messages.
    let (mesh, messages) =
        unsafe { (mesh(user), std::slice::from_raw_parts(messages, count as usize)) };
    for message in messages {
        let place = (message.peer as usize, message.data as usize, message.bytes as usize);
        match message.is_sent {
            0 => mesh.receive(place.0, place.1, place.2),
            _ => mesh.send(place.0, place.1, place.2),
        }
    }
    Status::Ok as i32
}

/// As xqkv_poll_callback.
pub unsafe extern "C" fn poll(is_done: *mut i32, rank: *mut i64, user: *mut c_void) -> i32 {
    // SAFETY: the library calls it with the mesh and places for its answers.
    let (mesh, is_done, at) = unsafe { (mesh(user), &mut *is_done, &mut *rank) };
    match mesh.progress() {
        Ok(waits_for) => {
            *is_done = waits_for.is_none().into();
            *at = waits_for.map_or(-1, |rank| rank as i64);
            Status::Ok as i32
        }
        Err(Lost(rank)) => {
            *at = rank as i64;
            Status::PeerLost as i32
        }
    }
}

/// As xqkv_abort_callback. The others see their sockets end.
pub unsafe extern "C" fn abort(user: *mut c_void) {
    // SAFETY: the library calls it with the mesh.
    unsafe { mesh(user) }.shut();
}
