//! The lanes over a stand-in for the encoder, whose batches end when a test lets them.

use std::collections::HashSet;
use std::future::Future;
use std::pin::pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::{Duration, Instant};

use sela_encoder::{Share, TextInfo};

use super::queue::Queues;
use super::request::Request;
use super::works::Each;
use super::{EmbedOptions, Lane, QueueOptions, Scheduler, Ticket, Works};
use crate::engine::lock;
use crate::error::{Error, Result};
use crate::stats::LaneStats;

/// Tokens of a batch at most; a text has as many as it has letters.
const TOKENS_MAX: usize = 64;

/// A text's vector is its length. One that says `panic`, `broken` or `bad` does what it says.
#[derive(Default)]
struct Fake {
    seen: Mutex<Seen>,
    changed: Condvar,
    flights_max: usize,
}

#[derive(Default)]
struct Seen {
    /// The texts of each batch that was begun.
    batches: Vec<Vec<String>>,
    /// How much of the device each was given.
    shares: Vec<Share>,
    /// First letters of batches that do not end yet.
    held: HashSet<u8>,
}

impl Fake {
    fn hold(&self, letter: u8) {
        lock(&self.seen).held.insert(letter);
    }

    fn let_go(&self, letter: u8) {
        lock(&self.seen).held.remove(&letter);
        self.changed.notify_all();
    }

    /// The batches once there are so many.
    fn begun(&self, count: usize) -> Vec<Vec<String>> {
        let seen = lock(&self.seen);
        let enough = |seen: &mut Seen| seen.batches.len() < count;
        let seen = self.changed.wait_while(seen, enough).unwrap();
        seen.batches.clone()
    }
}

impl Works for Fake {
    type Text = String;
    type Flight = Vec<String>;

    fn dim(&self) -> usize {
        1
    }

    fn tokens_max(&self) -> usize {
        TOKENS_MAX
    }

    fn flights_max(&self) -> usize {
        self.flights_max.max(1)
    }

    fn check(&self, prompt: Option<&str>, _: &[String]) -> Result<()> {
        match prompt {
            Some("none") => Err(sela_encoder::Error::UnknownPrompt("none".into()).into()),
            _ => Ok(()),
        }
    }

    fn tokenize(&self, prompt: Option<&str>, texts: &[String]) -> Result<Vec<String>> {
        let prompt = prompt.unwrap_or_default();
        if let Some(index) = texts.iter().position(|text| text.contains("garbled")) {
            let reason = "it is garbled".into();
            return Err(sela_encoder::Error::Tokenize { index, reason }.into());
        }
        Ok(texts.iter().map(|text| format!("{prompt}{text}")).collect())
    }

    fn tokens(text: &String) -> usize {
        text.len()
    }

    fn start(&self, texts: Vec<String>, share: Share) -> Vec<String> {
        let mut seen = lock(&self.seen);
        seen.batches.push(texts.clone());
        seen.shares.push(share);
        drop(seen);
        self.changed.notify_all();
        texts
    }

    fn finish(&self, texts: Vec<String>, each: &mut Each<'_>) -> Result<()> {
        let letter = texts[0].as_bytes()[0];
        let seen = lock(&self.seen);
        let held = |seen: &mut Seen| seen.held.contains(&letter);
        drop(self.changed.wait_while(seen, held).unwrap());
        assert!(!texts.iter().any(|text| text.contains("panic")), "as told");
        if texts.iter().any(|text| text.contains("broken")) {
            return Err(Error::Closed);
        }
        for (i, text) in texts.iter().enumerate().rev() {
            if text.contains("bad") {
                each(i, Err(sela_encoder::Error::NotFinite { index: i }.into()));
            } else {
                each(i, Ok((&[text.len() as f32], TextInfo::default())));
            }
        }
        Ok(())
    }
}

struct Bench {
    fake: Arc<Fake>,
    scheduler: Scheduler<Fake>,
}

fn bench(options: QueueOptions) -> Bench {
    bench_of(Fake::default(), options)
}

fn bench_of(fake: Fake, options: QueueOptions) -> Bench {
    let fake = Arc::new(fake);
    let scheduler = Scheduler::new(fake.clone(), options).unwrap();
    Bench { fake, scheduler }
}

fn on(lane: Lane) -> EmbedOptions {
    EmbedOptions {
        lane,
        ..EmbedOptions::default()
    }
}

impl Bench {
    fn ask(&self, lane: Lane, texts: &[&str]) -> Result<Ticket> {
        let texts = texts.iter().map(|text| (*text).to_owned()).collect();
        self.scheduler.submit(texts, &on(lane))
    }

    fn stats(&self, lane: Lane) -> LaneStats {
        self.scheduler.stats().swap_remove(lane as usize)
    }

    /// A batch of a lane that does not end before its letter is let go.
    fn occupy(&self, lane: Lane, letter: char) -> Ticket {
        self.fake.hold(letter as u8);
        let before = lock(&self.fake.seen).batches.len();
        let ticket = self.ask(lane, &[&letter.to_string()]).unwrap();
        self.fake.begun(before + 1);
        ticket
    }
}

#[test]
fn what_queues_up_while_a_batch_runs_is_the_next_batch_in_order() {
    let bench = bench(QueueOptions::default());
    let first = bench.occupy(Lane::Interactive, 'x');
    let texts: Vec<String> = (0..TOKENS_MAX / 2).map(|n| format!("{n:02}")).collect();
    let ask = |text: &String| bench.ask(Lane::Interactive, &[text]).unwrap();
    let tickets: Vec<Ticket> = texts.iter().map(ask).collect();
    let stats = bench.stats(Lane::Interactive);
    assert_eq!(stats.queued_texts, texts.len() as u64);
    assert!(stats.oldest > Duration::ZERO);
    bench.fake.let_go(b'x');
    assert_eq!(first.wait().unwrap().vectors, [1.0]);
    for ticket in tickets {
        assert_eq!(ticket.wait().unwrap().vectors, [2.0]);
    }
    assert_eq!(
        bench.fake.begun(2),
        [vec!["x".to_owned()], texts],
        "one alone at once, then all together"
    );
    let stats = bench.stats(Lane::Interactive);
    assert_eq!((stats.queued_texts, stats.queued_bytes), (0, 0));
    assert_eq!(stats.batch_tokens.count, 2);
    assert_eq!(stats.batch_tokens.sum, 1 + TOKENS_MAX as u64);
    assert_eq!(stats.batch_requests.max, TOKENS_MAX as u64 / 2);
    assert_eq!(stats.took.count, stats.requests);
}

#[test]
fn a_request_of_many_batches_lets_others_take_their_turn() {
    let bench = bench(QueueOptions::default());
    let first = bench.occupy(Lane::Bulk, 'x');
    let long = "l".repeat(TOKENS_MAX);
    let many = bench.ask(Lane::Bulk, &[&long, &long, &long]).unwrap();
    let other = bench.ask(Lane::Bulk, &["o"]).unwrap();
    bench.fake.let_go(b'x');
    let found = many.wait().unwrap();
    assert_eq!(found.vectors, [TOKENS_MAX as f32; 3]);
    assert_eq!(found.info.len(), 3);
    assert!(first.wait().is_ok() && other.wait().is_ok());
    let firsts: Vec<String> = bench
        .fake
        .begun(5)
        .iter()
        .map(|batch| batch[0][..1].to_owned())
        .collect();
    assert_eq!(firsts, ["x", "l", "o", "l", "l"]);
}

#[test]
fn texts_too_long_to_tokenise_at_once_come_back_in_their_order() {
    let bench = bench(QueueOptions::default());
    // Beyond what a caller tokenises; an estimate of the tokens is far too low for these.
    let texts: Vec<String> = (0..200).map(|n| "t".repeat(1 + n % 60)).collect();
    for lane in Lane::ALL {
        let options = EmbedOptions {
            prompt: Some("::".into()),
            ..on(lane)
        };
        let ticket = bench.scheduler.submit(texts.clone(), &options).unwrap();
        let found = ticket.wait().unwrap().vectors;
        let expected: Vec<f32> = texts.iter().map(|text| text.len() as f32 + 2.0).collect();
        assert_eq!(found, expected);
    }
    for batch in bench.fake.begun(1) {
        let tokens: usize = batch.iter().map(String::len).sum();
        assert!(tokens <= TOKENS_MAX, "{tokens}");
    }
}

#[test]
fn bulk_stands_back_for_interactive_work_until_it_has_aged() {
    let now = Instant::now();
    let mut queues: Queues<String> = Queues::default();
    let request = |lane| Arc::new(Request::new(&on(lane), vec!["text".into()]));
    queues.lane(Lane::Bulk).push(&request(Lane::Bulk), now);
    assert_eq!(queues.stands_back(Lane::Bulk, now), None, "nobody is there");
    let first = request(Lane::Interactive);
    queues.lane(Lane::Interactive).push(&first, now);
    assert_eq!(queues.stands_back(Lane::Interactive, now), None);
    let until = queues.stands_back(Lane::Bulk, now).unwrap();
    assert!(until > now);
    assert_eq!(queues.stands_back(Lane::Bulk, until), None, "it has aged");
    // A batch of its own makes it young again.
    queues.lane(Lane::Bulk).running += 1;
    queues.lane(Lane::Bulk).ran(until);
    assert!(queues.stands_back(Lane::Bulk, until).is_some());
}

#[test]
fn bulk_goes_on_beside_interactive_work_without_end() {
    let bench = bench(QueueOptions::default());
    let interactive = bench.occupy(Lane::Interactive, 'x');
    let bulk = bench.ask(Lane::Bulk, &["b", "b"]).unwrap();
    assert_eq!(bulk.wait().unwrap().vectors, [1.0, 1.0]);
    let bulk = bench.occupy(Lane::Bulk, 'b');
    // And an interactive request beside a bulk batch that does not end.
    bench.fake.let_go(b'x');
    interactive.wait().unwrap();
    let next = bench.ask(Lane::Interactive, &["y"]).unwrap();
    assert_eq!(next.wait().unwrap().vectors, [1.0]);
    bench.fake.let_go(b'b');
    bulk.wait().unwrap();
}

#[test]
fn bulk_batches_are_short_while_interactive_requests_come_in() {
    let now = Instant::now();
    let mut queues: Queues<String> = Queues::default();
    let pace = &mut queues.lane(Lane::Bulk).pace;
    pace.ran(100_000, Duration::from_secs(1));
    let alone = queues.budget(Lane::Bulk, 1, now);
    assert_eq!(queues.depth(Lane::Bulk, 3, now), 3);
    queues.see(Lane::Interactive, now);
    let beside = queues.budget(Lane::Bulk, 1, now);
    assert_eq!(beside, 500, "5 ms");
    assert_eq!(queues.depth(Lane::Bulk, 3, now), 2);
    assert_eq!(queues.budget(Lane::Bulk, 2, now), 250, "5 ms together");
    assert!(alone >= 10 * beside, "{alone}");
    let later = now + Duration::from_secs(2);
    assert_eq!(queues.budget(Lane::Bulk, 1, later), alone);
}

#[test]
fn bulk_leaves_a_part_of_the_device_while_interactive_requests_come_in() {
    let bench = bench(QueueOptions::default());
    for lane in [Lane::Bulk, Lane::Interactive, Lane::Bulk] {
        bench.ask(lane, &["text"]).unwrap().wait().unwrap();
    }
    let shares = lock(&bench.fake.seen).shares.clone();
    assert_eq!(shares, [Share::Whole, Share::Whole, Share::Part]);
}

#[test]
fn a_dropped_ticket_cancels_what_was_not_begun() {
    let bench = bench(QueueOptions::default());
    let first = bench.occupy(Lane::Interactive, 'x');
    let kept = bench.ask(Lane::Interactive, &["kept"]).unwrap();
    for _ in 0..200 {
        drop(bench.ask(Lane::Interactive, &["dropped"]).unwrap());
    }
    let stats = bench.stats(Lane::Interactive);
    assert_eq!((stats.cancelled, stats.queued_texts), (200, 1));
    assert_eq!(stats.queued_bytes, 4);
    bench.fake.let_go(b'x');
    assert!(first.wait().is_ok() && kept.wait().is_ok());
    assert_eq!(bench.fake.begun(2), [["x"], ["kept"]]);
}

#[test]
fn a_ticket_dropped_midway_stops_at_the_border_of_a_batch() {
    let bench = bench(QueueOptions::default());
    let long = "l".repeat(TOKENS_MAX);
    bench.fake.hold(b'l');
    let many = bench.ask(Lane::Bulk, &[&*long; 10]).unwrap();
    bench.fake.begun(1);
    drop(many);
    assert_eq!(bench.stats(Lane::Bulk).queued_texts, 0);
    bench.fake.let_go(b'l');
    let next = bench.ask(Lane::Bulk, &["n"]).unwrap();
    assert!(next.wait().is_ok());
    assert_eq!(bench.fake.begun(2), [[long], ["n".to_owned()]]);
}

#[test]
fn a_request_is_not_begun_after_its_deadline() {
    let bench = bench(QueueOptions::default());
    let with = |deadline| EmbedOptions {
        deadline: Some(deadline),
        ..EmbedOptions::default()
    };
    let past = bench
        .scheduler
        .submit(vec!["p".into()], &with(Instant::now()));
    assert!(matches!(past, Err(Error::Deadline { .. })));

    let first = bench.occupy(Lane::Interactive, 'x');
    let soon = Instant::now() + Duration::from_millis(5);
    let late = bench
        .scheduler
        .submit(vec!["late".into()], &with(soon))
        .unwrap();
    let far = Instant::now() + Duration::from_secs(3600);
    let kept = bench
        .scheduler
        .submit(vec!["kept".into()], &with(far))
        .unwrap();
    while Instant::now() < soon {
        thread::yield_now();
    }
    bench.fake.let_go(b'x');
    let error = late.wait().unwrap_err();
    assert!(matches!(error, Error::Deadline { waited } if waited >= Duration::from_millis(4)));
    assert!(first.wait().is_ok() && kept.wait().is_ok());
    assert_eq!(bench.fake.begun(2), [["x"], ["kept"]]);
    let stats = bench.stats(Lane::Interactive);
    assert_eq!((stats.expired, stats.queued_texts), (2, 0));
}

#[test]
fn a_full_queue_refuses_at_once_and_takes_more_when_it_has_room() {
    let options = QueueOptions {
        texts_max: 3,
        bytes_max: 100,
    };
    let bench = bench(options);
    let first = bench.occupy(Lane::Interactive, 'x');
    let two = bench.ask(Lane::Interactive, &["a", "b"]).unwrap();
    match bench.ask(Lane::Interactive, &["c", "d"]).unwrap_err() {
        Error::Busy {
            what,
            queued,
            limit,
            retry_after,
        } => {
            assert_eq!((what, queued, limit), ("texts", 2, 3));
            assert!(retry_after >= Duration::from_secs(1));
        }
        other => panic!("{other}"),
    }
    let one = bench.ask(Lane::Interactive, &["c"]).unwrap();
    // The other lane has room of its own.
    assert!(bench.ask(Lane::Bulk, &["b"]).unwrap().wait().is_ok());
    assert_eq!(bench.stats(Lane::Interactive).refused, 1);
    bench.fake.let_go(b'x');
    assert!(first.wait().is_ok() && two.wait().is_ok() && one.wait().is_ok());
    assert!(
        bench
            .ask(Lane::Interactive, &["e", "f"])
            .unwrap()
            .wait()
            .is_ok()
    );

    let bytes = "l".repeat(101);
    let refused = [
        bench.ask(Lane::Interactive, &["a"; 4]),
        bench.ask(Lane::Interactive, &[&*bytes]),
    ];
    for refused in refused {
        let error = refused.unwrap_err();
        assert!(matches!(error, Error::RequestTooLarge { .. }), "{error}");
        assert!(error.hint().is_some());
    }
    let first = bench.occupy(Lane::Interactive, 'x');
    let long = bench.ask(Lane::Interactive, &[&bytes[..60]]).unwrap();
    let error = bench.ask(Lane::Interactive, &[&bytes[..60]]).unwrap_err();
    let full = matches!(
        error,
        Error::Busy {
            what: "bytes of text",
            ..
        }
    );
    assert!(full, "{error}");
    bench.fake.let_go(b'x');
    assert!(first.wait().is_ok() && long.wait().is_ok());
}

#[test]
fn errors_find_the_requests_they_concern() {
    let bench = bench(QueueOptions::default());
    let options = EmbedOptions {
        prompt: Some("none".into()),
        ..EmbedOptions::default()
    };
    assert!(bench.scheduler.submit(vec!["a".into()], &options).is_err());
    assert!(bench.ask(Lane::Interactive, &["a", "garbled"]).is_err());

    let first = bench.occupy(Lane::Interactive, 'x');
    let bad = bench.ask(Lane::Interactive, &["a", "b", "bad"]).unwrap();
    let good = bench.ask(Lane::Interactive, &["g"]).unwrap();
    bench.fake.let_go(b'x');
    match bad.wait().unwrap_err() {
        Error::Encoder(sela_encoder::Error::NotFinite { index }) => assert_eq!(index, 2),
        other => panic!("{other}"),
    }
    assert!(first.wait().is_ok() && good.wait().is_ok());
    // Tokenised by the lane: the place is the text's in the request.
    let mut texts = vec!["t".repeat(30); 50];
    texts[40] = "garbled".into();
    let error = bench.scheduler.submit(texts, &on(Lane::Bulk));
    match error.unwrap().wait().unwrap_err() {
        Error::Encoder(sela_encoder::Error::Tokenize { index, .. }) => assert_eq!(index, 40),
        other => panic!("{other}"),
    }
    assert_eq!(bench.stats(Lane::Bulk).queued_texts, 0);
    let error = bench.ask(Lane::Bulk, &["broken", "b"]).unwrap().wait();
    let error = error.unwrap_err();
    assert!(matches!(error.cause(), Error::Closed), "{error}");
    assert!(bench.ask(Lane::Bulk, &["b"]).unwrap().wait().is_ok());
}

#[test]
fn a_panic_fails_its_batch_and_nothing_else() {
    let bench = bench(QueueOptions::default());
    for lane in Lane::ALL {
        let error = bench
            .ask(lane, &["panic", "p"])
            .unwrap()
            .wait()
            .unwrap_err();
        assert!(matches!(&error, Error::Panicked { reason } if reason.contains("as told")));
        assert!(bench.ask(lane, &["n"]).unwrap().wait().is_ok());
        assert_eq!(bench.stats(lane).failed, 1);
        assert_eq!(bench.stats(lane).running, 0);
    }
}

#[test]
fn nothing_asked_is_nothing_answered() {
    let bench = bench(QueueOptions::default());
    let found = bench.ask(Lane::Interactive, &[]).unwrap().wait().unwrap();
    assert_eq!(
        (found.dim, found.vectors.len(), found.info.len()),
        (1, 0, 0)
    );
}

#[test]
fn closing_ends_what_was_begun_and_fails_the_rest() {
    for flights_max in [1, 3] {
        let fake = Fake {
            flights_max,
            ..Fake::default()
        };
        let bench = bench_of(fake, QueueOptions::default());
        bench.fake.hold(b'x');
        let long = "x".repeat(TOKENS_MAX);
        let texts = vec![&*long; flights_max];
        let begun = bench.ask(Lane::Interactive, &texts).unwrap();
        bench.fake.begun(flights_max);
        let left: Vec<Ticket> = (0..3)
            .map(|_| bench.ask(Lane::Interactive, &[&long]).unwrap())
            .collect();
        let Bench { fake, scheduler } = bench;
        // The queue is told to stop before the batch may end.
        scheduler.shared.stop();
        fake.let_go(b'x');
        drop(scheduler);
        assert_eq!(begun.wait().unwrap().info.len(), flights_max);
        for ticket in left {
            assert!(matches!(ticket.wait().unwrap_err(), Error::Closed));
        }
        assert_eq!(fake.begun(flights_max).len(), flights_max);
        assert_eq!(Arc::strong_count(&fake), 1, "the threads have ended");
    }
}

#[test]
fn several_batches_are_under_way_where_the_device_takes_them() {
    let fake = Fake {
        flights_max: 3,
        ..Fake::default()
    };
    let bench = bench_of(fake, QueueOptions::default());
    bench.fake.hold(b'x');
    let long = "x".repeat(TOKENS_MAX);
    let five = bench.ask(Lane::Interactive, &[&*long; 5]).unwrap();
    assert_eq!(bench.fake.begun(3).len(), 3);
    let stats = bench.stats(Lane::Interactive);
    assert_eq!((stats.running, stats.queued_texts), (3, 2));
    bench.fake.let_go(b'x');
    assert_eq!(five.wait().unwrap().info.len(), 5);
}

#[test]
fn every_caller_gets_its_own_vectors() {
    let bench = bench(QueueOptions::default());
    let bench = &bench;
    thread::scope(|scope| {
        for caller in 0..16usize {
            scope.spawn(move || {
                let lane = Lane::ALL[caller % 2];
                for n in 0..100 {
                    let texts: Vec<String> = (0..1 + n % 5)
                        .map(|i| "t".repeat(1 + (caller + n + i) % 40))
                        .collect();
                    let expected: Vec<f32> = texts.iter().map(|t| t.len() as f32).collect();
                    let ticket = bench.scheduler.submit(texts, &on(lane)).unwrap();
                    if n % 7 == 3 {
                        drop(ticket);
                        continue;
                    }
                    assert_eq!(ticket.wait().unwrap().vectors, expected);
                }
            });
        }
    });
    for lane in Lane::ALL {
        let stats = bench.stats(lane);
        assert_eq!(stats.requests, 800);
        assert_eq!((stats.queued_texts, stats.queued_bytes), (0, 0));
        assert_eq!(stats.cancelled + stats.took.count, 800, "{stats:?}");
    }
}

#[test]
fn a_ticket_is_a_future() {
    struct Count(AtomicUsize, thread::Thread);
    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
            self.1.unpark();
        }
    }
    let bench = bench(QueueOptions::default());
    let first = bench.occupy(Lane::Interactive, 'x');
    let count = Arc::new(Count(AtomicUsize::new(0), thread::current()));
    let waker = Waker::from(count.clone());
    let mut context = Context::from_waker(&waker);
    let mut first = pin!(first);
    assert!(
        first
            .as_mut()
            .poll(&mut Context::from_waker(Waker::noop()))
            .is_pending()
    );
    // The waker of the last poll is the one that counts.
    assert!(first.as_mut().poll(&mut context).is_pending());
    bench.fake.let_go(b'x');
    while count.0.load(Ordering::Relaxed) == 0 {
        thread::park();
    }
    assert!(matches!(
        first.as_mut().poll(&mut context),
        Poll::Ready(Ok(_))
    ));
}
