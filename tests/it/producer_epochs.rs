//! What brokers do with the sequence numbers and epochs of an idempotent producer, in requests that
//! this test writes byte by byte. The relay's first-record gate rests on it: where a broker knows a
//! producer, in whatever epoch, it leaves no gap; where it does not, it accepts what comes first.

use std::{
    io::{Read, Write},
    net::TcpStream,
};

use crate::harness::kafka::{KafkaVersion, topic_name};

const OK: i16 = 0;
const TOO_LARGE: i16 = 10;
const OUT_OF_ORDER: i16 = 45;
const INVALID_EPOCH: i16 = 47;

const PRODUCE: i16 = 0;
const INIT_PRODUCER_ID: i16 = 22;

/// A connection to a broker. It has one request under way at a time.
struct Connection {
    stream: TcpStream,
    topic: String,
    producer_id: i64,
}

impl Connection {
    /// Connects, and gets a producer id.
    fn open(servers: &str, topic: &str) -> Self {
        let first = servers.split(',').next().expect("a server");
        let mut connection = Self {
            stream: TcpStream::connect(first).expect("connected"),
            topic: topic.to_owned(),
            producer_id: -1,
        };
        let no_transaction = [&(-1_i16).to_be_bytes()[..], &60_000_i32.to_be_bytes()].concat();
        let answer = connection.call(INIT_PRODUCER_ID, 0, &no_transaction);
        let id = answer[6..14].try_into().expect("eight bytes");
        connection.producer_id = i64::from_be_bytes(id);
        connection
    }

    /// Sends a batch of one record. Returns the broker's error code.
    fn produce(&mut self, partition: i32, epoch: i16, sequence: i32, bytes: usize) -> i16 {
        let batch = self.batch(epoch, sequence, bytes);
        let body = [
            &(-1_i16).to_be_bytes()[..], // no transaction
            &(-1_i16).to_be_bytes(),     // acks=all
            &10_000_i32.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &text(&self.topic),
            &1_i32.to_be_bytes(),
            &partition.to_be_bytes(),
            &(batch.len() as i32).to_be_bytes(),
            &batch,
        ]
        .concat();
        let answer = self.call(PRODUCE, 7, &body);
        let code = 4 + 2 + self.topic.len() + 4 + 4;
        i16::from_be_bytes([answer[code], answer[code + 1]])
    }

    fn batch(&self, epoch: i16, sequence: i32, bytes: usize) -> Vec<u8> {
        let value = [&varint(bytes as i64)[..], &vec![b'a'; bytes]].concat();
        // Attributes, difference of time and of offset, no key, the value, no header.
        let record = [&[0, 0, 0][..], &varint(-1), &value, &[0]].concat();
        let covered = [
            &0_i16.to_be_bytes()[..],
            &0_i32.to_be_bytes(),
            &1_700_000_000_000_i64.to_be_bytes(),
            &1_700_000_000_000_i64.to_be_bytes(),
            &self.producer_id.to_be_bytes(),
            &epoch.to_be_bytes(),
            &sequence.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &varint(record.len() as i64),
            &record,
        ]
        .concat();
        let checked = [
            &(-1_i32).to_be_bytes()[..],
            &[2],
            &crc32c(&covered).to_be_bytes(),
            &covered,
        ]
        .concat();
        [
            &0_i64.to_be_bytes()[..],
            &(checked.len() as i32).to_be_bytes(),
            &checked,
        ]
        .concat()
    }

    /// Sends a request, and returns its answer without the header.
    fn call(&mut self, api: i16, version: i16, body: &[u8]) -> Vec<u8> {
        let request = [
            &api.to_be_bytes()[..],
            &version.to_be_bytes(),
            &1_i32.to_be_bytes(),
            &text("it"),
            body,
        ]
        .concat();
        let length = (request.len() as i32).to_be_bytes();
        self.stream
            .write_all(&[&length[..], &request].concat())
            .expect("sent");
        let mut length = [0; 4];
        self.stream.read_exact(&mut length).expect("a length");
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        self.stream.read_exact(&mut answer).expect("an answer");
        answer.split_off(4)
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat()
}

fn varint(number: i64) -> Vec<u8> {
    let mut left = (number << 1 ^ number >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while left >= 0x80 {
        bytes.push(left as u8 | 0x80);
        left >>= 7;
    }
    bytes.push(left as u8);
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    let shift = |crc: u32| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 };
    let byte = |crc: u32, byte: &u8| (0..8).fold(crc ^ u32::from(*byte), |crc, _| shift(crc));
    !bytes.iter().fold(!0, byte)
}

on_each_kafka!(a_gap_is_refused_in_each_epoch_of_a_producer_that_the_broker_knows);
async fn a_gap_is_refused_in_each_epoch_of_a_producer_that_the_broker_knows(kafka: KafkaVersion) {
    let topic = topic_name("epochs");
    kafka
        .create_topic_with(&topic, 2, &[("max.message.bytes", "2000")])
        .await;
    let (servers, of) = (kafka.servers(), topic.clone());
    let check = move || {
        let mut broker = Connection::open(&servers, &of);
        for (partition, epoch, sequence, bytes, expected, what) in [
            (
                1,
                0,
                7,
                9,
                OK,
                "a gap where the broker does not know the producer",
            ),
            (0, 0, 0, 9, OK, "the first record"),
            (0, 0, 1, 9, OK, "the second"),
            (0, 0, 3, 9, OUT_OF_ORDER, "a gap"),
            (
                0,
                1,
                0,
                5000,
                TOO_LARGE,
                "the first record of the next epoch is rejected",
            ),
            (0, 1, 1, 9, OUT_OF_ORDER, "the request behind it"),
            (
                0,
                0,
                2,
                9,
                OK,
                "a late request, before the next epoch has written",
            ),
            (0, 1, 0, 9, OK, "the first record of the next epoch"),
            (0, 0, 3, 9, INVALID_EPOCH, "a late request, after it"),
            (0, 1, 0, 9, OK, "a late copy, which is not written"),
            (0, 1, 1, 9, OK, "the second of the next epoch"),
        ] {
            let code = broker.produce(partition, epoch, sequence, bytes);
            assert_eq!(code, expected, "{what}: epoch {epoch}, sequence {sequence}");
        }
    };
    tokio::task::spawn_blocking(check).await.expect("checked");
    assert_eq!(
        kafka.read(&topic).await.len(),
        6,
        "what was accepted, without the copy"
    );
}
