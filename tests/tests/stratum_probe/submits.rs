//! Shares and lookalikes.

use super::*;

pub(crate) const SUBMITS: &[Case] = &[
    ("a share", |stand| assert_eq!(stand.ready().submit(&stand.user(), &[]), 0)),
    ("submit before subscribe", |stand| {
        let share = json!([stand.user(), "1", "0000000000000000", "00000000", "00000000"]);
        assert_eq!(stand.connect().code("mining.submit", share), 25);
    }),
    ("submit of a user who is not authorised", |stand| {
        assert_eq!(stand.ready().submit(&format!("{}.other", stand.address), &[]), 24);
    }),
    ("submit of an unknown job", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(1, json!("feed"))]), 21);
    }),
    ("a job's id that is too long is refused", |stand| {
        assert_ne!(stand.ready().submit(&stand.user(), &[(1, json!("f".repeat(500)))]), 0);
    }),
    ("extranonce2 must have its width", |stand| {
        let mut client = stand.ready();
        for wrong in ["00000000000000", "000000000000000000", "0000000000000", "", "000000000000000000000000"]
        {
            assert_eq!(client.submit(&stand.user(), &[(2, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("fields that are no hex are refused", |stand| {
        let mut client = stand.ready();
        for (index, wrong) in [
            (2, "zz00000000000000"),
            (3, "zzzzzzzz"),
            (4, "zzzzzzzz"),
            (4, "+0000000"),
            (2, "0x00000000000000"),
        ] {
            assert_eq!(client.submit(&stand.user(), &[(index, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("fields that are no text are refused", |stand| {
        let mut client = stand.ready();
        for index in 1..5 {
            for wrong in [json!(1), json!(null), json!([]), json!({}), json!(true)] {
                assert_eq!(client.submit(&stand.user(), &[(index, wrong.clone())]), 20, "{index}: {wrong}");
            }
        }
    }),
    ("ntime must have its width", |stand| {
        let mut client = stand.ready();
        for wrong in ["0", "0000000", "000000000"] {
            assert_eq!(client.submit(&stand.user(), &[(3, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("ntime before the template's least is refused", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(3, json!("00000001"))]), 20);
    }),
    ("ntime far ahead is refused", |stand| {
        let mut client = stand.ready();
        for ahead in [660, 7200, 1 << 31] {
            let late = u32::try_from(now() + ahead).unwrap_or(u32::MAX);
            assert_eq!(client.submit(&stand.user(), &[(3, json!(format!("{late:08x}")))]), 20, "{ahead}");
        }
    }),
    ("ntime a little ahead is taken", |stand| {
        let soon = format!("{:08x}", now() + 540);
        assert_eq!(stand.ready().submit(&stand.user(), &[(3, json!(soon))]), 0);
    }),
    ("a short nonce is taken", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(4, json!("ab"))]), 0);
    }),
    ("a long nonce is refused", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(4, json!("0000000ab"))]), 20);
    }),
    ("hex in capitals is taken", |stand| {
        assert_eq!(
            stand.ready().submit(&stand.user(), &[(2, json!("00000000000000AB")), (4, json!("ABCDEF01"))]),
            0
        );
    }),
    ("the same share again is refused", |stand| {
        let mut client = stand.ready();
        assert_eq!(client.submit(&stand.user(), &[]), 0);
        assert_eq!(client.submit(&stand.user(), &[]), 22);
    }),
    ("the same share again in other letters is refused", |stand| {
        let mut client = stand.ready();
        assert_eq!(
            client.submit(&stand.user(), &[(2, json!("00000000000000ab")), (4, json!("000000cd"))]),
            0
        );
        assert_eq!(
            client.submit(&stand.user(), &[(2, json!("00000000000000AB")), (4, json!("000000CD"))]),
            22
        );
        assert_eq!(client.submit(&stand.user(), &[(2, json!("00000000000000ab")), (4, json!("cd"))]), 22);
    }),
    ("the same share again of another user is refused", |stand| {
        let (mut client, other) = (stand.ready(), format!("{}.two", stand.address));
        client.call("mining.authorize", json!([other, "x"]));
        assert_eq!(client.submit(&stand.user(), &[]), 0);
        assert_eq!(client.submit(&other, &[]), 22);
    }),
    ("a refused share may come again rightly", |stand| {
        let mut client = stand.ready();
        assert_eq!(client.submit(&stand.user(), &[(3, json!("00000001"))]), 20);
        assert_eq!(client.submit(&stand.user(), &[]), 0);
    }),
    ("version bits of who never asked to roll are taken within the pool's mask", |stand| {
        let mut client = stand.ready();
        assert_eq!(client.submit(&stand.user(), &[(5, json!("00002000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[(5, json!("20000000"))]), 20);
        assert_eq!(client.submit(&stand.user(), &[(5, json!(""))]), 0, "empty text stands for none");
    }),
    ("version bits of who was told that it may roll none are refused", |stand| {
        let mut client = stand.ready();
        let options = json!({"version-rolling.mask": "e0000000"});
        client.call("mining.configure", json!([["version-rolling"], options]));
        assert_eq!(client.submit(&stand.user(), &[(5, json!("00002000"))]), 20);
    }),
    ("version bits outside the mask are refused", |stand| {
        let mut client = stand.rolling();
        for wrong in ["00000001", "20000000", "e0000000", "00003fff"] {
            assert_eq!(client.submit(&stand.user(), &[(5, json!(wrong))]), 20, "{wrong}");
        }
    }),
    ("version bits within the mask are taken, and make another share", |stand| {
        let mut client = stand.rolling();
        assert_eq!(client.submit(&stand.user(), &[(5, json!("00002000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[(5, json!("1fffe000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[(5, json!("00000000"))]), 0);
        assert_eq!(client.submit(&stand.user(), &[]), 22, "no bits and zero bits are one header");
    }),
    ("a hash above the target is refused", |stand| {
        let mut client = stand.connect();
        client.call("mining.authorize", json!([stand.user(), "d=1000000"]));
        client.call("mining.subscribe", json!([]));
        client.wait_for_job();
        assert_eq!(client.submit(&stand.user(), &[]), 23);
    }),
    ("a share that was too easy may come again no better", |stand| {
        let mut client = stand.connect();
        client.call("mining.authorize", json!([stand.user(), "d=1000000"]));
        client.call("mining.subscribe", json!([]));
        client.wait_for_job();
        assert_eq!(client.submit(&stand.user(), &[]), 23);
        assert_eq!(client.submit(&stand.user(), &[]), 23, "it was not remembered: the target comes first");
    }),
    ("a difficulty holds for the jobs after it only", |stand| {
        let mut client = stand.ready();
        client.call("mining.suggest_difficulty", json!([1e6]));
        assert_eq!(client.submit(&stand.user(), &[]), 0, "this job was sent before");
    }),
    ("missing parameters are refused", |stand| {
        let mut client = stand.ready();
        for length in 0..5 {
            let whole = [
                json!(stand.user()),
                client.job[0].clone(),
                json!("0000000000000000"),
                client.job[7].clone(),
            ];
            let params: Vec<Value> = whole.into_iter().take(length).collect();
            assert_ne!(client.code("mining.submit", json!(params)), 0, "{length}");
        }
    }),
    ("a null for the version bits is none", |stand| {
        assert_eq!(stand.ready().submit(&stand.user(), &[(5, Value::Null)]), 0);
    }),
    ("the same numbers of two miners are two shares", |stand| {
        let (mut one, mut two) = (stand.ready(), stand.ready());
        assert_eq!((one.submit(&stand.user(), &[]), two.submit(&stand.user(), &[])), (0, 0));
    }),
    ("a pipelined batch of shares is answered, each once", |stand| {
        let mut client = stand.ready();
        let mut lines = String::new();
        for number in 0..500 {
            let share =
                json!([stand.user(), client.job[0], format!("{number:016x}"), client.job[7], "00000001"]);
            lines += &(json!({"id": number, "method": "mining.submit", "params": share}).to_string() + "\n");
        }
        client.send(lines.as_bytes());
        let mut answered: Vec<u64> = (0..500)
            .map(|_| client.answer())
            .map(|answer| {
                assert_eq!(answer["result"], true, "{answer}");
                answer["id"].as_u64().unwrap()
            })
            .collect();
        answered.sort_unstable();
        assert!(answered.iter().copied().eq(0..500));
    }),
];
