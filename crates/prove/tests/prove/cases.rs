//! Test cases of flows, and how their differences and mistakes are told.

use prove::{read_cases, run_cases};

use super::flow;

const FLOW: &str = "flow: order
input: { type: object, required: [sku], properties: { sku: { type: string } } }
deadline: 1h
steps:
  - id: reserve
    http: { method: POST, url: \"{{ env.STOCK_URL }}/r\", body: { sku: \"{{ input.sku }}\" } }
    retry: { attempts: 3, backoff: 10s..20s }
    compensate: { http: { method: DELETE, url: \"{{ env.STOCK_URL }}/r\" } }
  - id: pack
    native: pack
    with: { from: \"{{ steps.reserve.output.id }}\" }
result: { box: \"{{ steps.pack.output.box }}\" }
";

/// All differences of all cases, as they are told.
fn differences(cases: &str) -> String {
    let flow = flow(FLOW);
    let file = read_cases("order.test.yaml", cases, &flow)
        .unwrap_or_else(|problems| panic!("{}", problems.iter().map(ToString::to_string).collect::<String>()));
    let reports = run_cases(&flow, &file);
    let told = reports.iter().flat_map(|report| &report.differences).map(|it| format!("{}: {it}\n", it.line));
    told.collect()
}

fn problems(cases: &str) -> String {
    let problems = read_cases("order.test.yaml", cases, &flow(FLOW)).unwrap_err();
    problems.iter().map(|problem| format!("{problem}\n")).collect()
}

const GOOD: &str = "env: { STOCK_URL: http://stock }
cases:
  - case: it is packed
    given:
      input: { sku: cup }
      steps:
        reserve: [no-answer, { status: 200, body: { id: 7 }, after: 2s }]
        pack: { output: { box: small } }
    expect:
      status: succeeded
      result: { box: small }
      calls:
        - { call: reserve, url: http://stock/r, body: { sku: cup }, at: 0s }
        - reserve
        - { call: pack, with: { from: 7 } }
      compensated: []
";

#[test]
fn a_case_that_is_as_expected_has_no_differences() {
    assert_eq!(differences(GOOD), "");
}

#[test]
fn every_expectation_is_compared_and_a_difference_tells_both_sides_and_its_line() {
    for (from, to, told) in [
        ("status: succeeded", "status: failed", "10: status\n  expected  failed\n  got       succeeded\n"),
        ("result: { box: small }", "result: { box: big }", "11: result\n  expected  {\"box\":\"big\"}\n"),
        ("        - reserve\n", "", "expected  reserve, pack\n  got       reserve, reserve, pack\n"),
        ("body: { sku: cup }", "body: { sku: mug }", "13: call 1, reserve: body\n  expected  {\"sku\":\"mug\"}\n"),
        ("at: 0s", "at: 1s", "call 1, reserve: at\n  expected  1s\n  got       0s\n"),
        ("compensated: []", "compensated: [reserve]", "compensated\n  expected  reserve\n  got       \n"),
        (
            "output: { box: small }",
            "outcome: fails",
            "status\n  expected  succeeded\n  got       failed (pack: fails)\n",
        ),
        ("        pack: { output: { box: small } }\n", "", "got       pack is called, and the case gives no outcome"),
    ] {
        let changed = GOOD.replacen(from, to, 1);
        assert_ne!(changed, GOOD, "{from}");
        let differences = differences(&changed);
        assert!(differences.contains(told), "{told}\nis not in\n{differences}");
    }
}

#[test]
fn a_clock_that_skips_comes_to_the_deadline_and_waits_for_no_attempt_beyond_it() {
    let cases = "cases:
  - case: too late
    given:
      input: { sku: cup }
      steps: { reserve: [{ status: 503, retry_after: 50m }, { status: 503, retry_after: 10m }] }
    expect:
      status: failed
      error: { code: deadline-exceeded, attempts: 2 }
      calls: [{ call: reserve, at: 0s }, { call: reserve, at: 3000s }, { call: undo reserve, at: 3000s }]
";
    assert_eq!(differences(cases), "");
}

#[test]
fn an_operator_and_a_cancel_are_part_of_a_case() {
    let cases = "cases:
  - case: cancelled
    given: { input: { sku: cup }, steps: { reserve: 200 }, cancel_before: pack }
    expect: { status: cancelled, compensated: [reserve] }
  - case: given up
    given: { input: { sku: cup }, steps: { reserve: 200, pack: fails }, undo: { reserve: 400 } }
    expect: { status: needs_attention, calls: [reserve, undo reserve] }
  - case: sent on
    given:
      input: { sku: cup }
      steps: { reserve: { body: { id: 1 } }, pack: fails }
      undo: { reserve: [400, 204] }
      resumes: 1
    expect: { status: failed, calls: [reserve, pack, undo reserve, undo reserve] }
";
    // The second reads an output that is not there, so its step is never called.
    assert_eq!(differences(cases), "");
}

#[test]
fn mistakes_are_told_with_their_places_and_the_nearest_name() {
    for (from, to, told) in [
        (
            "reserve: [",
            "reserv: [",
            "order.test.yaml:7:9\n   = expected: reserve, pack\n   = help: did you mean `reserve`?",
        ),
        ("    expect:", "    expct:", "did you mean `expect`?"),
        ("status: succeeded", "status: succeded", "did you mean `succeeded`?"),
        ("no-answer", "no-anwser", "did you mean `no-answer`?"),
        ("{ sku: cup }\n", "{ sku: 5 }\n", "the flow refuses this input: `/sku`"),
        ("after: 2s", "after: 2", "`after` is `2`"),
        ("status: 200", "status: 20", "a status is `20`"),
    ] {
        let changed = GOOD.replacen(from, to, 1);
        assert_ne!(changed, GOOD, "{from}");
        let problems = problems(&changed);
        assert!(problems.contains(told), "{told}\nis not in\n{problems}");
    }
}

const ONCE: &str = "flow: order
steps:
  - id: print
    http: { method: POST, url: \"http://press/p\", body: { to: \"{{ callback.url }}\" } }
    callback: { timeout: 1h }
    timeout: 10s
    idempotent: false
    VERIFY
    compensate: { http: { method: DELETE, url: \"http://press/p\" }, retry: { attempts: 1 } }
  - id: pay
    native: pay
result: \"{{ steps.print.output }}\"
";
const ASKED: &str = "verify: { http: { url: 'http://press/p' }, done_when: '{{ response.status == 200 }}' }";

fn told_of(flow_text: &str, cases: &str) -> String {
    let flow = flow(flow_text);
    let file = read_cases("order.test.yaml", cases, &flow)
        .unwrap_or_else(|problems| panic!("{}", problems.iter().map(ToString::to_string).collect::<String>()));
    let reports = run_cases(&flow, &file);
    let told = reports.iter().flat_map(|report| &report.differences).map(|it| format!("{}: {it}\n", it.line));
    told.collect()
}

#[test]
fn a_call_whose_connection_was_lost_is_made_again_once_the_question_says_that_it_was_not_done() {
    let cases = "cases:
  - case: it is called again, and called back
    given:
      steps: { print: [connection-lost, 404, { status: 202 }], pay: succeeds }
      callbacks: [{ step: print, at: 2h, body: 7 }]
    expect: { status: succeeded, result: 7, calls: [print, print, print, pay] }
  - case: the callback comes, although no answer did
    given:
      steps: { print: connection-lost, pay: succeeds }
      callbacks: [{ step: print, at: 10m, body: 8 }]
    expect: { status: succeeded, result: 8, calls: [print, pay] }
";
    assert_eq!(told_of(&ONCE.replace("VERIFY", ASKED), cases), "");
}

#[test]
fn an_operator_says_in_a_case_how_a_step_has_ended_or_that_it_was_undone_by_hand() {
    let cases = "cases:
  - case: it was done
    given:
      steps: { print: 302, pay: succeeds }
      callbacks: [{ step: print, at: 3h }]
      resumes: [{ outcome: succeeded, output: 9 }]
    expect: { status: succeeded, result: 9, calls: [print, pay] }
  - case: it was not done
    given: { steps: { print: 302 }, callbacks: [{ step: print, at: 3h }], resumes: [failed] }
    expect: { status: failed, calls: [print], compensated: [] }
  - case: it is undone by hand, at the second parking
    given:
      steps: { print: { status: 202 }, pay: fails }
      callbacks: [{ step: print, at: 1m }]
      undo: { print: 400 }
      resumes: [again, { outcome: undone, reason: ticket 17 }]
    expect: { status: failed, calls: [print, pay, undo print, undo print], compensated: [print] }
  - case: it cannot be said
    given: { steps: { print: 302 }, callbacks: [{ step: print, at: 3h }], resumes: [undone] }
    expect: { status: failed }
";
    let told = told_of(&ONCE.replace("    VERIFY\n", ""), cases);
    assert!(told.contains("which cannot be said where the job is parked at `print`"), "{told}");
    let of_last = |line: &&str| line.starts_with("0: the run") || line.starts_with("20: status");
    assert_eq!(told.lines().filter(|line| line.starts_with(char::is_numeric)).filter(|line| !of_last(line)).count(), 0);
    let wrong = "cases:\n  - case: x\n    given: { resumes: [perhaps, { output: 1 }] }\n    expect: {}\n";
    let problems = read_cases("x", wrong, &flow(FLOW)).unwrap_err();
    assert_eq!(problems.len(), 2, "{problems:?}");
}

#[test]
fn a_case_of_a_schedule_has_the_input_of_a_tick_where_it_gives_none() {
    let flow = flow(
        "flow: timed\non: { cron: \"0 6 * * *\" }\nsteps: [{ id: one, sleep: 1s }]\nresult: \"{{ input.tick }}\"\n",
    );
    let cases =
        "cases:\n  - case: it starts\n    expect: { status: succeeded, result: \"2027-01-01T06:00:00.000Z\" }\n";
    let reports = run_cases(&flow, &read_cases("timed.test.yaml", cases, &flow).unwrap());
    assert!(reports.iter().all(|report| report.differences.is_empty()), "{reports:?}");
}
