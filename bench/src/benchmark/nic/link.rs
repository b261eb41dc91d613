//! The far end's agent: messages as lines of JSON, over ssh's pipes or a TCP connection.

use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::host::{Host, Reply, Request};
use crate::failure;
use crate::testbed::Result;

/// Servers start and end within it, transfers too.
const PATIENCE: Duration = Duration::from_secs(120);

/// Answers requests until the stream ends.
pub fn answer(input: impl BufRead, mut replies: impl Write) -> Result<()> {
    let mut host = Host::new()?;
    for line in input.lines() {
        let reply = match serde_json::from_str::<Request>(&line?) {
            Ok(request) => host.handle(request),
            Err(e) => Reply::Failed {
                why: format!("not a request: {e}"),
            },
        };
        let text = serde_json::to_string(&reply).map_err(|e| failure!("{e}"))?;
        writeln!(replies, "{text}")?;
        replies.flush()?;
    }
    Ok(())
}

/// Waits for one client after the other. Prints `ready` when it listens.
pub fn listen(address: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(address).map_err(|e| failure!("{address}: {e}"))?;
    println!("ready");
    loop {
        let (stream, from) = listener.accept()?;
        eprintln!("serving {from}");
        let result = answer(BufReader::new(stream.try_clone()?), stream);
        if let Err(e) = result {
            eprintln!("{from}: {e}");
        }
    }
}

/// The way to the far end.
pub struct Link {
    replies: Box<dyn BufRead>,
    requests: Box<dyn Write>,
    ssh: Option<Child>,
}

impl std::fmt::Debug for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Link")
            .field("ssh", &self.ssh)
            .finish_non_exhaustive()
    }
}

impl Link {
    /// To an agent that listens.
    pub fn connect(address: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(10))
            .map_err(|e| failure!("no agent at {address}: {e}"))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            replies: Box::new(BufReader::new(stream.try_clone()?)),
            requests: Box::new(stream),
            ssh: None,
        })
    }

    /// Starts an agent by ssh.
    pub fn ssh(host: &str, program: &str) -> Result<Self> {
        let mut child = Command::new("ssh")
            .args(["-o", "BatchMode=yes", host, program, "nic", "agent"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| failure!("ssh: {e}"))?;
        let (Some(requests), Some(replies)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(failure!("ssh has no pipes"));
        };
        Ok(Self {
            replies: Box::new(BufReader::new(replies)),
            requests: Box::new(requests),
            ssh: Some(child),
        })
    }

    /// Asks, and waits for the answer.
    pub fn ask(&mut self, request: &Request) -> Result<Reply> {
        let text = serde_json::to_string(request).map_err(|e| failure!("{e}"))?;
        writeln!(self.requests, "{text}")?;
        self.requests.flush()?;
        let mut line = String::new();
        if self.replies.read_line(&mut line)? == 0 {
            return Err(failure!("the far end has closed"));
        }
        match serde_json::from_str(&line).map_err(|e| failure!("{e} in {line}"))? {
            Reply::Failed { why } => Err(failure!("the far end: {why}")),
            reply => Ok(reply),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // The end of its input ends the agent, and so ssh.
        self.requests = Box::new(std::io::sink());
        if let Some(ssh) = &mut self.ssh {
            let _ = ssh.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_answers_line_by_line_and_survives_nonsense() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let agent = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            answer(BufReader::new(stream.try_clone().unwrap()), stream)
        });
        let mut link = Link::connect(address).unwrap();
        assert!(matches!(link.ask(&Request::Cpu).unwrap(), Reply::Cpu(_)));
        writeln!(link.requests, "nonsense").unwrap();
        let mut line = String::new();
        link.replies.read_line(&mut line).unwrap();
        assert!(line.contains("not a request"), "{line}");
        assert!(
            link.ask(&Request::Served)
                .is_ok_and(|reply| matches!(reply, Reply::Served { flows } if flows.is_empty()))
        );
        let error = link.ask(&Request::Look {
            flow: super::super::Direction::Up,
        });
        assert!(error.unwrap_err().0.contains("no braid runs"));
        drop(link);
        agent.join().unwrap().unwrap();
    }
}
