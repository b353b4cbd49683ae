//! HTTP/2 clients that break the protocol or exhaust it, frame by frame: each gets an error or is cut off, takes little
//! memory, and keeps nobody out. Sections refer to RFC 9113 unless another document is named.

use super::{curl, daemon_with, frames::*};
use crate::harness::{TestDaemon, repetitions, until};
use levain::config::Config;
use std::{fs, net::SocketAddr, time::Duration};

const CODE: &str = r#"
let calls = 0;
export default async (req) => {
    const url = new URL(req.url);
    if (url.pathname === "/calls") return new Response(String(calls));
    calls++;
    if (url.pathname === "/unread") await new Promise((resolve) => req.signal.addEventListener("abort", resolve));
    if (url.pathname === "/large") return new Response("x".repeat(4_000_000));
    if (url.pathname === "/endless") return new Response(new ReadableStream({
        async pull(controller) { controller.enqueue("x".repeat(60_000)); await Bun.sleep(0); },
    }));
    return new Response("ok " + (await req.text()).length);
};"#;

async fn with_function() -> TestDaemon {
    with_function_on(|_| {}).await
}

async fn with_function_on(change: impl FnOnce(&mut Config)) -> TestDaemon {
    let daemon = daemon_with(|config| {
        config.http.head_timeout_ms = 5_000;
        config.http.body_timeout_ms = 700;
        change(config);
    })
    .await;
    daemon.deploy_text("f", CODE).await;
    daemon
}

async fn is_served(daemon: &TestDaemon) {
    let shown = curl(daemon, &["--http2-prior-knowledge", "-d", "hello"], "/functions/f").await;
    assert_eq!((shown.status(), shown.text()), (200, "ok 5"));
}

/// Memory of this process, which includes the daemon.
fn memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() << 10
}

const MIB: u64 = 1 << 20;

/// Expected reaction of the daemon.
#[derive(Debug, Clone, Copy)]
enum Expected {
    /// GOAWAY with this code, and the end of the connection. The h2 crate reports PROTOCOL_ERROR for anything it cannot
    /// read, even where a more exact code is required; the test insists only on the end.
    Connection(u32),
    /// GOAWAY and the end of the connection, or the reset of the stream, with one of two codes: the RFC allows both.
    Either(u32, u32),
    /// RST_STREAM of its only stream with this code, or the end of the connection.
    Stream(u32),
    /// Reset of the stream, or an error as its answer: an incomplete request (section 8.1.1).
    Malformed,
    /// The connection goes on.
    Ignored,
}

fn headers(list: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_STREAM | END_HEADERS, 1, list)
}

/// A request with the usual header list except this pseudo-header, and with these headers in addition.
fn list(without: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let usual = [(":method", "GET"), (":scheme", "http"), (":authority", "x"), (":path", "/functions/f")];
    let kept = usual.iter().filter(|(name, _)| *name != without).chain(more);
    headers(&kept.flat_map(|(name, value)| literal(name, value)).collect::<Vec<_>>())
}

/// A request with a body of three bytes and this content length.
fn body(length: &str) -> Vec<u8> {
    let head = head("POST", "/functions/f", &[("content-length", length)]);
    [frame(HEADERS, END_HEADERS, 1, &head), frame(DATA, END_STREAM, 1, b"abc")].concat()
}

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &head("POST", "/functions/f", &[]))
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn violations() -> Vec<(&'static str, Vec<u8>, Expected)> {
    use Expected::{Connection, Either, Ignored, Malformed, Stream};
    let window = |stream, by: u32| frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes());
    let ping = frame(PING, 0, 0, &[0; 8]);
    let unfinished = frame(HEADERS, END_STREAM, 1, &head("GET", "/functions/f", &[]));
    vec![
        ("4.2: a frame over 16 KiB", [open(1), frame(DATA, 0, 1, &[0; 16_385])].concat(), Connection(FRAME_SIZE_ERROR)),
        ("5.5: an unknown kind of frame", frame(0xbb, 0xff, 0, b"whatever"), Ignored),
        ("6.1: DATA on stream 0", frame(DATA, 0, 0, b"x"), Connection(PROTOCOL_ERROR)),
        ("6.1: DATA on an idle stream", frame(DATA, 0, 1, b"x"), Either(PROTOCOL_ERROR, STREAM_CLOSED)),
        (
            "6.1: DATA whose padding is all of it and more",
            [open(1), frame(DATA, 8, 1, &[9, 0])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        (
            "6.2: HEADERS on stream 0",
            frame(HEADERS, END_STREAM | END_HEADERS, 0, &head("GET", "/", &[])),
            Connection(PROTOCOL_ERROR),
        ),
        ("5.1.1: HEADERS on an even stream", get(2, "/functions/f"), Connection(PROTOCOL_ERROR)),
        (
            "5.1.1: a stream below the last one",
            [get(5, "/functions/f"), get(3, "/functions/f")].concat(),
            Either(PROTOCOL_ERROR, STREAM_CLOSED),
        ),
        (
            "5.1: HEADERS on a stream that has ended",
            [get(1, "/functions/f"), get(1, "/functions/f")].concat(),
            Either(STREAM_CLOSED, PROTOCOL_ERROR),
        ),
        ("6.3: PRIORITY on stream 0", frame(PRIORITY, 0, 0, &[0; 5]), Connection(PROTOCOL_ERROR)),
        ("6.3: PRIORITY of four bytes", frame(PRIORITY, 0, 1, &[0; 4]), Stream(FRAME_SIZE_ERROR)),
        ("6.4: RST_STREAM on stream 0", frame(RST_STREAM, 0, 0, &[0; 4]), Connection(PROTOCOL_ERROR)),
        ("6.4: RST_STREAM of an idle stream", frame(RST_STREAM, 0, 1, &[0; 4]), Connection(PROTOCOL_ERROR)),
        (
            "6.4: RST_STREAM of three bytes",
            [open(1), frame(RST_STREAM, 0, 1, &[0; 3])].concat(),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("6.5: SETTINGS of five bytes", frame(SETTINGS, 0, 0, &[0; 5]), Connection(FRAME_SIZE_ERROR)),
        ("6.5: SETTINGS on a stream", frame(SETTINGS, 0, 1, &[]), Connection(PROTOCOL_ERROR)),
        (
            "6.5: an acknowledgement with a setting",
            frame(SETTINGS, ACK, 0, &setting(3, 1)),
            Connection(FRAME_SIZE_ERROR),
        ),
        ("6.5.2: ENABLE_PUSH = 2", frame(SETTINGS, 0, 0, &setting(2, 2)), Connection(PROTOCOL_ERROR)),
        (
            "6.5.2: INITIAL_WINDOW_SIZE = 2^31",
            frame(SETTINGS, 0, 0, &setting(4, 1 << 31)),
            Connection(FLOW_CONTROL_ERROR),
        ),
        ("6.5.2: MAX_FRAME_SIZE = 16383", frame(SETTINGS, 0, 0, &setting(5, 16_383)), Connection(PROTOCOL_ERROR)),
        ("6.5.2: an unknown setting", frame(SETTINGS, 0, 0, &setting(0xfe, 9)), Ignored),
        (
            "6.6: PUSH_PROMISE of a client",
            [open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.7: PING of seven bytes", frame(PING, 0, 0, &[0; 7]), Connection(FRAME_SIZE_ERROR)),
        ("6.7: PING on a stream", frame(PING, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.8: GOAWAY on a stream", frame(GOAWAY, 0, 1, &[0; 8]), Connection(PROTOCOL_ERROR)),
        ("6.9: WINDOW_UPDATE of three bytes", frame(WINDOW_UPDATE, 0, 0, &[0; 3]), Connection(FRAME_SIZE_ERROR)),
        ("6.9: WINDOW_UPDATE of the connection by 0", window(0, 0), Connection(PROTOCOL_ERROR)),
        ("6.9: WINDOW_UPDATE of a stream by 0", [open(1), window(1, 0)].concat(), Stream(PROTOCOL_ERROR)),
        ("6.9: WINDOW_UPDATE of an idle stream", window(1, 1), Connection(PROTOCOL_ERROR)),
        ("6.9.1: a window of the connection over 2^31 - 1", window(0, 0x7fff_ffff), Connection(FLOW_CONTROL_ERROR)),
        (
            "6.9.1: a window of a stream over 2^31 - 1",
            [open(1), window(1, 0x7fff_ffff)].concat(),
            Stream(FLOW_CONTROL_ERROR),
        ),
        ("6.10: CONTINUATION of nothing", frame(CONTINUATION, END_HEADERS, 1, &[]), Connection(PROTOCOL_ERROR)),
        (
            "6.10: CONTINUATION of another stream",
            [unfinished.clone(), frame(CONTINUATION, END_HEADERS, 3, &[])].concat(),
            Connection(PROTOCOL_ERROR),
        ),
        ("6.2: another frame inside a header list", [unfinished, ping].concat(), Connection(PROTOCOL_ERROR)),
        ("RFC 7541, 6.1: an index of nothing", headers(&[0x80]), Connection(COMPRESSION_ERROR)),
        ("RFC 7541, 2.3.3: an index behind the table", headers(&[0xff, 0x7f]), Connection(COMPRESSION_ERROR)),
        (
            "RFC 7541, 6.3: a table over its limit",
            headers(&[0x3f, 0xe1, 0xff, 0xff, 0x07]),
            Connection(COMPRESSION_ERROR),
        ),
        ("RFC 7541, 5.2: a text longer than its frame", headers(&[0, 5, b'a']), Connection(COMPRESSION_ERROR)),
        ("8.2.1: a name with capitals", list("", &[("X-Big", "1")]), Malformed),
        ("8.2.1: a value with a line break", list("", &[("x", "a\r\nb: c")]), Malformed),
        ("8.2.2: connection", list("", &[("connection", "keep-alive")]), Malformed),
        ("8.2.2: transfer-encoding", list("", &[("transfer-encoding", "chunked")]), Malformed),
        ("8.2.2: te that is not trailers", list("", &[("te", "gzip")]), Malformed),
        ("8.3: an unknown pseudo-header", list("", &[(":x", "1")]), Malformed),
        ("8.3: the pseudo-header of an answer", list("", &[(":status", "200")]), Malformed),
        ("8.3: a pseudo-header behind the others", list(":path", &[("a", "1"), (":path", "/functions/f")]), Malformed),
        ("8.3.1: no method", list(":method", &[]), Malformed),
        ("8.3.1: no scheme", list(":scheme", &[]), Malformed),
        ("8.3.1: no path", list(":path", &[]), Malformed),
        ("8.3.1: an empty path", list(":path", &[(":path", "")]), Malformed),
        ("8.3.1: two paths", list("", &[(":path", "/functions/f/calls")]), Malformed),
        ("8.1.1: less than content-length", body("5"), Malformed),
        ("8.1.1: more than content-length", body("2"), Malformed),
        ("8.1.1: a content-length that is no number", body("x"), Malformed),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn who_breaks_a_rule_is_told_and_cut_off() {
    let daemon = with_function().await;
    let mut wrong = Vec::new();
    for (rule, bytes, expected) in violations() {
        let mut peer = Peer::begin(daemon.http(), &[]).await;
        peer.send(&bytes).await;
        let mut end = peer.outcome().await;
        // An answer or a reset of the stream may come after the answer to the PING.
        if matches!(expected, Expected::Malformed | Expected::Stream(_)) && end == End::default() {
            let frames = peer.answer(1).await;
            end.resets.extend(frames.iter().filter(|it| it.kind == RST_STREAM).map(|it| (1, it.code())));
            end.answered.extend(frames.iter().filter(|it| it.kind == HEADERS).map(|it| it.stream));
        }
        let is_right = match expected {
            Expected::Connection(code) => [Some(code), Some(PROTOCOL_ERROR)].contains(&end.goaway) && end.is_closed,
            Expected::Either(one, other) => {
                let codes = [Some(one), Some(other)];
                codes.contains(&end.goaway) && end.is_closed
                    || end.resets.iter().any(|(_, code)| codes.contains(&Some(*code)))
            }
            Expected::Stream(code) => end.is_closed || end.resets.iter().any(|(_, it)| *it == code),
            Expected::Malformed => end.goaway.is_some() || !end.resets.is_empty() || !end.answered.is_empty(),
            Expected::Ignored => end == End::default(),
        };
        if !is_right {
            wrong.push(format!("{rule}: expected {expected:?}, got {end:?}"));
        }
        is_served(&daemon).await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    daemon.stop().await;
}

/// Incomplete and contradictory requests never become an invocation.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_request_reaches_no_function() {
    let daemon = with_function().await;
    is_served(&daemon).await;
    for (rule, bytes, expected) in violations() {
        // A body that turns out too long or too short may have reached the function already.
        if matches!(expected, Expected::Malformed) && !rule.starts_with("8.1.1: ") {
            let mut peer = Peer::begin(daemon.http(), &[]).await;
            peer.send(&bytes).await;
            peer.outcome().await;
            assert_eq!(curl(&daemon, &[], "/functions/f/calls").await.text(), "1", "{rule}");
        }
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_preface_is_no_connection() {
    let daemon = with_function().await;
    // Section 3.4.
    for bytes in [
        &b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"[..],
        b"PRI * HTTP/2.1\r\n\r\nSM\r\n\r\n",
        &[PREFACE, &[0xff; 64]].concat(),
        &[PREFACE, &frame(DATA, 0, 0, b"x")].concat(),
    ] {
        let mut peer = Peer::connect(daemon.http()).await;
        peer.send(bytes).await;
        while peer.next().await.is_some() {}
        is_served(&daemon).await;
    }
    daemon.stop().await;
}

/// Sends the first bytes, then the others again and again, and returns the number of bytes taken.
async fn flood(address: SocketAddr, first: &[u8], again: &[u8], times: usize) -> (usize, End) {
    let mut peer = Peer::begin(address, &[]).await;
    peer.send(first).await;
    // Sent in pieces, since one large buffer would be counted as the daemon's memory.
    let at_once = (64 * 1024 / again.len()).clamp(1, times);
    let block = again.repeat(at_once);
    let mut sent = 0;
    for _ in 0..times / at_once {
        let some = peer.send(&block).await;
        sent += some;
        if some < block.len() {
            break;
        }
    }
    (sent, peer.outcome().await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_list_without_end_is_ended() {
    let daemon = with_function_on(|config| config.http.head_timeout_ms = 1_000).await;
    let begun = frame(HEADERS, END_STREAM, 1, &head("GET", "/functions/f", &[]));
    let before = memory();
    // CVE-2024-27316: empty CONTINUATION frames, and full ones.
    let some: Vec<u8> = (0..30).flat_map(|number| literal(&format!("x-{number}"), &"y".repeat(500))).collect();
    for (again, times) in [(frame(CONTINUATION, 0, 1, &[]), 200_000), (frame(CONTINUATION, 0, 1, &some), 2_000)] {
        let (_, end) = flood(daemon.http(), &begun, &again, times).await;
        assert!(end.is_closed, "{end:?}");
        is_served(&daemon).await;
    }
    assert!(memory() < before + 32 * MIB, "{before} -> {}", memory());
    // A header block that is begun and then left unfinished.
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    peer.send(&begun).await;
    while peer.next().await.is_some() {}
    is_served(&daemon).await;
    daemon.stop().await;
}

/// CVE-2023-44487: streams are opened and reset in quick succession.
#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_opened_and_reset_become_few_calls() {
    let daemon = with_function().await;
    let (before, opened) = (memory(), 20_000);
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    let bytes: Vec<u8> = (0..opened)
        .flat_map(|number| {
            let stream = 2 * number + 1;
            [get(stream, "/functions/f"), frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
        })
        .collect();
    peer.send(&bytes).await;
    let end = peer.outcome().await;
    assert_eq!((end.goaway, end.is_closed), (Some(ENHANCE_YOUR_CALM), true));
    is_served(&daemon).await;
    let calls: u32 = curl(&daemon, &[], "/functions/f/calls").await.text().parse().unwrap();
    assert!(calls < opened / 10, "{calls}");
    assert!(memory() < before + 32 * MIB, "{before} -> {}", memory());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_ask_for_answers_nobody_reads_are_no_heap() {
    let daemon = with_function().await;
    let before = memory();
    for again in [
        frame(PING, 0, 0, &[7; 8]),
        frame(SETTINGS, 0, 0, &[]),
        frame(SETTINGS, 0, 0, &setting(4, 65_535)),
        frame(PRIORITY, 0, 1, &[0, 0, 0, 0, 9]),
        frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
    ] {
        let frames = repetitions(150_000, 300_000);
        flood(daemon.http(), &[], &again, frames).await;
        assert!(memory() < before + 160 * frames as u64, "{before} -> {}", memory());
        is_served(&daemon).await;
    }
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_that_unpack_to_a_lot_are_refused() {
    let daemon = with_function().await;
    let before = memory();
    // A header that enters the table (RFC 7541, section 6.2.1), and is then repeated by single bytes.
    let mut bomb = head("GET", "/functions/f", &[]);
    bomb.push(0x40);
    integer(1, &mut bomb);
    bomb.push(b'x');
    integer(3_900, &mut bomb);
    bomb.extend([b'y'; 3_900]);
    bomb.extend([0xbe; 10_000]);
    let plain: Vec<u8> = (0..7).flat_map(|number| literal(&format!("x-{number}"), &"y".repeat(2_000))).collect();
    let plain = [head("GET", "/functions/f", &[]), plain].concat();
    let more: Vec<u8> = (10..40).flat_map(|number| literal(&format!("x-{number}"), &"y".repeat(500))).collect();
    for (what, bytes) in [
        ("a bomb", frame(HEADERS, END_STREAM | END_HEADERS, 1, &bomb)),
        (
            "more than http.head_bytes_max",
            [
                frame(HEADERS, END_STREAM, 1, &plain),
                frame(CONTINUATION, 0, 1, &more),
                frame(CONTINUATION, END_HEADERS, 1, &more),
            ]
            .concat(),
        ),
    ] {
        for _ in 0..20 {
            let mut peer = Peer::begin(daemon.http(), &[]).await;
            peer.send(&bytes).await;
            let mut end = peer.outcome().await;
            if end == End::default() {
                end.answered.extend(peer.answer(1).await.iter().map(|it| it.stream));
            }
            assert!(end.goaway.is_some() || !end.resets.is_empty() || !end.answered.is_empty(), "{what}: {end:?}");
        }
        is_served(&daemon).await;
    }
    assert_eq!(curl(&daemon, &[], "/functions/f/calls").await.text(), "2", "bad requests do not become invocations");
    assert!(memory() < before + 32 * MIB, "{before} -> {}", memory());
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_the_limit_are_refused() {
    let daemon = with_function().await;
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    let bytes: Vec<u8> = (0..300).flat_map(|number| open(2 * number + 1)).collect();
    peer.send(&bytes).await;
    let end = peer.outcome().await;
    let refused = end.resets.iter().filter(|(_, code)| *code == REFUSED_STREAM).count();
    assert!(refused >= 300 - 128 || end.is_closed, "{end:?}");
    is_served(&daemon).await;
    daemon.stop().await;
}

/// A client that opens no window holds a worker no longer than `http.body_timeout_ms`, and takes little memory.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_opens_no_window_keeps_no_worker() {
    let daemon = with_function().await;
    let before = memory();
    for (window, path) in [(0, "/functions/f/large"), (1, "/functions/f/endless")] {
        // INITIAL_WINDOW_SIZE (section 6.5.2).
        let mut peer = Peer::begin(daemon.http(), &setting(4, window)).await;
        let bytes: Vec<u8> = (0..20).flat_map(|number| get(2 * number + 1, path)).collect();
        peer.send(&bytes).await;
        let daemon = &daemon;
        until("its calls have begun", || async move {
            daemon.pools("f").await.iter().any(|pool| pool.running > 3).then_some(())
        })
        .await;
        until("its calls have ended", || async move {
            daemon.pools("f").await.iter().all(|pool| pool.running + pool.queued == 0).then_some(())
        })
        .await;
        assert!(memory() < before + 64 * MIB, "{before} -> {}", memory());
        is_served(daemon).await;
        // The connection itself survives.
        assert!(!peer.outcome().await.is_closed);
    }
    daemon.stop().await;
}

/// Unread bodies do not use up the connection's window (section 5.2.2).
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_nobody_reads_keeps_no_other_waiting() {
    // Bun does not abort a request whose body waits to be read, so these invocations last until they are ended.
    let daemon = with_function_on(|config| config.daemon.shutdown_grace_ms = 100).await;
    let mut peer = Peer::begin(daemon.http(), &[]).await;
    for stream in [1, 3, 5] {
        peer.send(&frame(HEADERS, END_HEADERS, stream, &head("POST", "/functions/f/unread", &[]))).await;
        let sent = peer.upload(stream, 32 * MIB as usize, Duration::from_millis(300)).await;
        assert!(sent.bytes < 32 * MIB as usize, "the whole body was taken");
    }
    peer.send(&open(7)).await;
    assert_eq!(peer.upload(7, 200_000, Duration::from_secs(20)).await.bytes, 200_000);
    let answer = peer.answer(7).await;
    assert!(answer.iter().any(|it| it.kind == DATA && it.payload == b"ok 200000"), "{answer:?}");
    drop(peer);
    is_served(&daemon).await;
    daemon.stop().await;
}
