//! A root shell on a node that needs neither the API server nor the kubelet: a small server in the guest, asked over the
//! run's network. One connection is one script; a closed connection ends it.
//!
//! Request: script and input, each a length (u32, little-endian) and bytes. Answer: frames of a kind (`o` output,
//! `e` errors, `x` exit code as text), a length and bytes.

use std::{
    fs::File,
    io::{self, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use rustix::{
    process::{Pid, Signal, kill_process_group},
    thread::{LinkNameSpaceType, move_into_link_name_space},
};

use super::{capture::Output, network::Namespace};
use crate::failure::Outcome;

const PORT: u16 = 1;
/// No message is longer: a length beyond it is not one of ours.
const LONGEST: u32 = 64 << 20;

/// The way to one node's shell.
#[derive(Clone, Debug)]
pub(crate) struct Shell {
    network: Namespace,
    address: SocketAddr,
    node: &'static str,
}

impl Shell {
    pub(super) fn new(network: Namespace, address: Ipv4Addr, node: &'static str) -> Self {
        Self { network, address: (address, PORT).into(), node }
    }

    /// Runs a script of `/bin/sh` as root on the node, whatever its end.
    pub(crate) fn script(&self, script: &str, input: &str, deadline: Duration) -> Outcome<Output> {
        let ask = || -> io::Result<(i32, Vec<u8>, Vec<u8>)> {
            let mut stream = self.connect()?;
            stream.set_read_timeout(Some(deadline))?;
            send(&mut stream, script.as_bytes())?;
            send(&mut stream, input.as_bytes())?;
            answer(&mut stream)
        };
        let (code, stdout, stderr) = ask().map_err(|error| {
            format!("node {}: `{script}` was not answered in {deadline:?}: {error}", self.node)
        })?;
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let command = self.shown(script);
        Ok(Output { command, success: code == 0, stdout: text(&stdout), stderr: text(&stderr) })
    }

    /// A script as it would be typed there.
    pub(crate) fn shown(&self, script: &str) -> String {
        format!("{}# {script}", self.node)
    }

    /// Only a thread of its own can enter the run's network: the others stay in the machine's.
    fn connect(&self) -> io::Result<TcpStream> {
        let (namespace, address) = (File::open(self.network.file())?, self.address);
        let inside = thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?;
            TcpStream::connect_timeout(&address, Duration::from_secs(5))
        });
        inside.join().unwrap_or_else(|_| Err(io::Error::other("the connecting thread panicked")))
    }
}

fn send(stream: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
    let length = u32::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&length.to_le_bytes())?;
    stream.write_all(bytes)
}

fn receive(stream: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = u32::from_le_bytes(length);
    if length > LONGEST {
        return Err(io::Error::other(format!("a message of {length} bytes is too long")));
    }
    let mut bytes = vec![0; length as usize];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn answer(stream: &mut impl Read) -> io::Result<(i32, Vec<u8>, Vec<u8>)> {
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    loop {
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let bytes = receive(stream)?;
        match kind[0] {
            b'o' => stdout.extend(bytes),
            b'e' => stderr.extend(bytes),
            _ => {
                let code = String::from_utf8_lossy(&bytes).parse().map_err(io::Error::other)?;
                return Ok((code, stdout, stderr));
            }
        }
    }
}

/// Serves scripts in the guest, for ever.
pub(crate) fn serve() -> Outcome {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT))?;
    for stream in listener.incoming() {
        let stream = stream?;
        thread::spawn(move || {
            if let Err(error) = serve_one(stream) {
                eprintln!("node shell: {error}");
            }
        });
    }
    Ok(())
}

fn serve_one(mut stream: TcpStream) -> io::Result<()> {
    let (script, input) = (receive(&mut stream)?, receive(&mut stream)?);
    let mut command = Command::new("/bin/sh");
    command.arg("-c").arg(String::from_utf8_lossy(&script).into_owned()).process_group(0);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn()?;
    end_when_left(&child, stream.try_clone()?)?;
    if let Some(mut pipe) = child.stdin.take() {
        thread::spawn(move || drop(pipe.write_all(&input)));
    }
    let out = Arc::new(Mutex::new(stream));
    let output = forward(child.stdout.take(), b'o', &out);
    let errors = forward(child.stderr.take(), b'e', &out);
    let code = child.wait()?.code().unwrap_or(-1);
    for thread in [output, errors] {
        let _ = thread.join();
    }
    frame(&out, b'x', code.to_string().as_bytes())
}

fn forward(
    pipe: Option<impl Read + Send + 'static>,
    kind: u8,
    out: &Arc<Mutex<TcpStream>>,
) -> thread::JoinHandle<io::Result<()>> {
    let out = Arc::clone(out);
    thread::spawn(move || {
        let Some(mut pipe) = pipe else { return Ok(()) };
        let mut buffer = vec![0; 64 << 10];
        loop {
            match pipe.read(&mut buffer)? {
                0 => return Ok(()),
                length => frame(&out, kind, &buffer[..length])?,
            }
        }
    })
}

fn frame(out: &Mutex<TcpStream>, kind: u8, bytes: &[u8]) -> io::Result<()> {
    let mut out = out.lock().unwrap_or_else(PoisonError::into_inner);
    out.write_all(&[kind])?;
    send(&mut *out, bytes)
}

/// The client sends nothing after its request: a read that ends means that it is gone.
fn end_when_left(child: &Child, mut stream: TcpStream) -> io::Result<()> {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let group = group.ok_or_else(|| io::Error::other("a process without an id"))?;
    thread::spawn(move || {
        let _ = stream.read(&mut [0]);
        let _ = kill_process_group(group, Signal::KILL);
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(script: &str, input: &str) -> (i32, Vec<u8>, Vec<u8>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let server = thread::spawn(move || serve_one(listener.accept().unwrap().0).unwrap());
        let mut stream = TcpStream::connect(address).unwrap();
        send(&mut stream, script.as_bytes()).unwrap();
        send(&mut stream, input.as_bytes()).unwrap();
        let answer = answer(&mut stream).unwrap();
        server.join().unwrap();
        answer
    }

    #[test]
    fn a_script_gets_its_input_and_gives_output_and_code() {
        let (code, stdout, stderr) = ask("cat; echo bad >&2; exit 7", "hello");
        assert_eq!((code, stdout.as_slice(), stderr.as_slice()), (7, &b"hello"[..], &b"bad\n"[..]));
    }

    #[test]
    fn much_output_arrives_whole() {
        let (code, stdout, _) = ask("head -c 1000000 /dev/zero", "");
        assert_eq!((code, stdout.len()), (0, 1_000_000));
    }
}
