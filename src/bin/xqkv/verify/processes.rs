//! Ranks that are processes of this machine: the command starts itself for each, with sockets to
//! all the others or with NCCL's id on its standard input, and reads what each gives on its
//! standard output.

use super::Arguments;
use super::group::Medium;
use super::member::{self, Ran};
use crate::library::{Comm, Context, Outcome};
use crate::sockets::Mesh;
use std::io::{Read, Write};
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread;
use xqkv::capi::nccl::xqkv_unique_id;

/// Starts all ranks and gathers what they did. With an id they are joined by NCCL.
pub fn run(count: usize, id: Option<&xqkv_unique_id>) -> Outcome<Vec<Vec<Ran>>> {
    let meshes = Mesh::all(count).map_err(|error| error.to_string())?;
    let children: Vec<Child> = meshes
        .iter()
        .enumerate()
        .map(|(rank, mesh)| start(rank, mesh, id))
        .collect::<Outcome<_>>()?;
    drop(meshes);
    thread::scope(|scope| {
        let threads: Vec<_> =
            children.into_iter().map(|child| scope.spawn(move || collect(child))).collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| Err("reading a rank panicked".into())))
            .collect()
    })
}

fn start(rank: usize, mesh: &Mesh, id: Option<&xqkv_unique_id>) -> Outcome<Child> {
    let descriptors = mesh.descriptors();
    let listed: Vec<String> =
        descriptors.iter().map(|descriptor: &RawFd| descriptor.to_string()).collect();
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(program);
    command.args(std::env::args_os().skip(1));
    command.args(["--member", &rank.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    if !listed.is_empty() {
        command.arg(format!("--sockets={}", listed.join(",")));
    }
    // SAFETY: between fork and exec only fcntl is called.
    unsafe { command.pre_exec(move || descriptors.iter().try_for_each(inherit)) };
    let mut child = command.spawn().map_err(|error| error.to_string())?;
    // A secret, so it is no argument, which others could read.
    if let (Some(id), Some(mut input)) = (id, child.stdin.take()) {
        input.write_all(&id.bytes).map_err(|error| error.to_string())?;
    }
    Ok(child)
}

/// Lets a descriptor live on through exec.
fn inherit(descriptor: &RawFd) -> std::io::Result<()> {
    // SAFETY: changes a flag of a descriptor.
    match unsafe { libc::fcntl(*descriptor, libc::F_SETFD, 0) } {
        -1 => Err(std::io::Error::last_os_error()),
        _ => Ok(()),
    }
}

fn collect(mut child: Child) -> Outcome<Vec<Ran>> {
    let ran = child.stdout.take().map_or(Ok(Vec::new()), read_all);
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { ran } else { Err(format!("a rank's process ended with {status}")) }
}

/// What a process that was started as a rank does.
pub fn run_member(arguments: &Arguments, rank: usize) -> Outcome<bool> {
    let sockets = &arguments.group.sockets;
    // SAFETY: the process that started this one left them to it.
    let mesh = unsafe { Mesh::inherited(rank, sockets) }.map_err(|error| error.to_string())?;
    let count = sockets.len() + 1;
    let join = |context: &Context| match arguments.group.comm {
        Some(Medium::Nccl) => Comm::nccl(context, &read_id()?, (rank, count)),
        _ => Comm::collectives(&mesh.collectives(), (rank, count), 0),
    };
    let ran = member::run(arguments, rank, count, join)?;
    let mut output = std::io::stdout().lock();
    ran.iter().try_for_each(|ran| write(&mut output, ran)).map_err(|error| error.to_string())?;
    Ok(true)
}

fn read_id() -> Outcome<xqkv_unique_id> {
    let mut id = xqkv_unique_id { bytes: [0; 128] };
    std::io::stdin().read_exact(&mut id.bytes).map_err(|error| error.to_string())?;
    Ok(id)
}

/// Four numbers, then the bytes of Q, K and V behind their lengths, -1 for one that was not run.
fn write(output: &mut impl Write, ran: &Ran) -> std::io::Result<()> {
    let mut number = |value: i64| output.write_all(&value.to_le_bytes());
    let numbers = [ran.executed, ran.transfers, ran.received_bytes, ran.bytes_touched];
    numbers.into_iter().try_for_each(&mut number)?;
    for result in &ran.results {
        let length = result.as_ref().map_or(-1, |bytes| bytes.len() as i64);
        output.write_all(&length.to_le_bytes())?;
        output.write_all(result.as_deref().unwrap_or_default())?;
    }
    output.flush()
}

fn read_all(mut input: ChildStdout) -> Outcome<Vec<Ran>> {
    let mut bytes = Vec::new();
    input.read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    let (mut left, mut ran) = (&bytes[..], Vec::new());
    while !left.is_empty() {
        ran.push(read(&mut left).ok_or("a rank's process told half of a call")?);
    }
    Ok(ran)
}

fn read(left: &mut &[u8]) -> Option<Ran> {
    let mut number = || {
        let (first, rest) = left.split_first_chunk::<8>()?;
        *left = rest;
        Some(i64::from_le_bytes(*first))
    };
    let (executed, transfers) = (number()?, number()?);
    let (received_bytes, bytes_touched) = (number()?, number()?);
    let mut results = [None, None, None];
    for result in &mut results {
        let (first, rest) = left.split_first_chunk::<8>()?;
        *left = rest;
        if let Ok(length) = usize::try_from(i64::from_le_bytes(*first)) {
            let (bytes, rest) = left.split_at_checked(length)?;
            (*result, *left) = (Some(bytes.to_vec()), rest);
        }
    }
    Some(Ran { executed, transfers, received_bytes, bytes_touched, results })
}
