//! Print an execution's events, over as many connections as it takes.
//!
//!     cargo run -- 'http://localhost:8080/api/agent/executions/ID/stream?heartbeat=3' TOKEN
use std::{collections::HashMap, time::Duration};

const LAST: [&str; 3] = ["execution:complete", "execution:error", "execution:cancelled"];

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let silence = Duration::from_secs(10);
    let client = reqwest::Client::builder().connect_timeout(silence).read_timeout(silence).build().unwrap();
    let (mut cursor, mut retry) = (String::new(), 2000);
    loop {
        let request = client.get(&arguments[1]).bearer_auth(&arguments[2]).header("Accept", "text/event-stream");
        if let Ok(true) = read(request, &mut cursor, &mut retry).await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(retry)).await; // it goes on where it was
    }
}

/// One connection, from the cursor on: whether the stream is over. An error is one that another try may mend.
async fn read(request: reqwest::RequestBuilder, cursor: &mut String, retry: &mut u64) -> reqwest::Result<bool> {
    let mut response = request.header("Last-Event-ID", &*cursor).send().await?;
    match response.status().as_u16() {
        204 => return Ok(true),
        429 | 500..=599 => return Ok(false),
        status if status >= 400 => panic!("status {status}"),
        _ => {}
    }
    let mut rest = Vec::new();
    while let Some(bytes) = response.chunk().await? {
        rest.extend_from_slice(&bytes);
        while let Some(end) = rest.windows(2).position(|two| two == b"\n\n") {
            let block = String::from_utf8(rest.drain(..end + 2).collect()).expect("it is ASCII");
            let field: HashMap<_, _> = block.lines().filter_map(|line| line.split_once(": ")).collect();
            let get = |name| field.get(name).copied().unwrap_or("");
            if let Some(id) = field.get("id") {
                *cursor = id.to_string();
            }
            *retry = get("retry").parse().unwrap_or(*retry);
            if !get("data").is_empty() && !get("event").starts_with("stream:") {
                println!("{cursor} {}", get("data"));
            }
            let is_over = get("event") == "stream:end" && get("data").contains(r#""reason":"finished""#);
            if is_over || LAST.contains(&get("event")) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
