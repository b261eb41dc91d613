//! Connections announce by themselves what the control plane decided before.

use std::net::IpAddr;

use super::*;

fn announcement(id: u8) -> Announcement {
    Announcement {
        id,
        address: IpAddr::from([10, 9, 9, id]),
        port: None,
    }
}

/// Opens a connection; its token, and which addresses the answer to the third ACK announces.
fn opened(b: &mut Bench, port: u16) -> (u32, u32, Vec<u8>) {
    let (iss, key) = stateless_syn(b, port);
    let key = key.unwrap();
    let echo = capable(Some((CLIENT_KEY, key)));
    let ack = iss.wrapping_add(1);
    let (answers, _) = b.segment(SERVER, port, Flags::ACK, (101, ack), echo);
    (crate::mptcp::token_of(key).0, ack, announced(&answers))
}

fn announced(answers: &[TcpPacket]) -> Vec<u8> {
    let options = answers.iter().flat_map(|a| a.options.mptcp.iter());
    let id = |o: &MptcpOption| match o {
        MptcpOption::AddAddr {
            echo: false,
            address_id,
            ..
        } => Some(address_id.0),
        _ => None,
    };
    options.filter_map(id).collect()
}

fn told(b: &mut Bench, token: u32) -> Vec<Announcement> {
    while let Some((_, event)) = b.engine.pop_event() {
        match event {
            Event::Established {
                token: t,
                announced,
                ..
            } if t == token => return announced,
            _ => {}
        }
    }
    panic!("not established");
}

#[test]
fn a_connection_announces_without_waiting_for_an_order() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    let (before, _, ids) = opened(&mut b, 1000);
    assert_eq!((ids, told(&mut b, before)), (vec![], vec![]));
    let list = [announcement(1), announcement(2)];
    b.engine.set_announcements(list.into());
    let (token, ack, ids) = opened(&mut b, 1001);
    assert_eq!(ids, [1], "the second waits for the echo of the first");
    assert_eq!(told(&mut b, token), list);
    let echo = MptcpOption::AddAddr {
        echo: true,
        address_id: AddressId(1),
        addr: announcement(1).address,
        port: None,
        hmac: None,
    };
    let (answers, _) = b.segment(SERVER, 1001, Flags::ACK, (101, ack), Some(echo));
    assert_eq!(announced(&answers), [2]);
    // Changed, it is changed for who comes later.
    b.engine.set_announcements([announcement(3)].into());
    let (token, _, ids) = opened(&mut b, 1002);
    assert_eq!((ids, told(&mut b, token)), (vec![3], vec![announcement(3)]));
}

#[test]
fn what_was_announced_without_an_order_is_withdrawn_by_one() {
    let mut b = Bench::new(WorkerShare::SOLE, 8);
    b.engine.set_announcements([announcement(1)].into());
    let (token, _, _) = opened(&mut b, 1000);
    let now = Instant::from_millis(3);
    let address_id = AddressId(1);
    let order = Order::RemoveAddress { address_id };
    b.engine.order(now, token, order).unwrap();
    let mut wire = Wire {
        pool: &b.pool,
        sent: Vec::new(),
    };
    b.engine.run(now, &mut wire);
    let withdrawn = |bytes: &Vec<u8>| match packet::parse(bytes) {
        Ok(Packet::Tcp(tcp)) => tcp
            .options
            .mptcp
            .iter()
            .any(|o| matches!(o, MptcpOption::RemoveAddr { .. })),
        other => panic!("{other:?}"),
    };
    assert_eq!(wire.sent.iter().filter(|bytes| withdrawn(bytes)).count(), 1);
    let connection = b.engine.connection(token).unwrap();
    assert_eq!(connection.info(now).announced, []);
}
