//! A headless Chromium of a test's own, driven through its driver.

use std::{net::TcpListener, path::PathBuf, process::Stdio, time::Duration};

use fantoccini::{
    Client, ClientBuilder, Locator,
    actions::{InputSource, KeyAction, KeyActions, MOUSE_BUTTON_LEFT, MouseActions, PointerAction},
    elements::Element,
    wd::{WebDriverCompatibleCommand, WindowHandle},
};
use hyper_util::client::legacy::connect::HttpConnector;
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use reqwest::{Method, Url};
use serde_json::{Value, json};
use testkit::wait_until;
use tokio::process::{Child, Command};

use crate::stack::gateway;

const LIMIT: Duration = Duration::from_secs(20);
const PALETTE: &str = include_str!("palette.js");
/// No picture shows more of a page than this.
const HIGHEST: u64 = 1700;

pub(crate) struct Browser {
    pub(crate) client: Client,
    driver: Child,
    /// The driver and Chromium, which does not end with it.
    group: Option<Pid>,
    profile: PathBuf,
    /// Of the stack that it visits.
    gateway: String,
    kind: Kind,
}

/// Where pictures are wanted, if they are.
pub(crate) fn pictures() -> Option<PathBuf> {
    std::env::var_os("SCREENSHOTS").map(PathBuf::from)
}

/// What kind of browser.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Kind {
    pub(crate) no_script: bool,
    pub(crate) dark: bool,
    pub(crate) narrow: bool,
}

impl Browser {
    /// One that visits the stack for people.
    pub(crate) async fn open(kind: Kind) -> Self {
        Self::at(gateway(), kind).await
    }

    /// One that visits the stack with this gateway.
    pub(crate) async fn at(gateway: &str, kind: Kind) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let driver = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver, from the package chromium-driver");
        let profile =
            std::env::temp_dir().join(format!("unacked-chromium-{}", uuid::Uuid::new_v4()));
        let client = wait_until("a browser", Duration::from_mins(1), async || {
            let mut builder = ClientBuilder::new(HttpConnector::new());
            let Value::Object(capabilities) = capabilities(&profile, kind) else {
                return None;
            };
            builder.capabilities(capabilities);
            builder
                .connect(&format!("http://127.0.0.1:{port}"))
                .await
                .ok()
        })
        .await;
        let group = driver
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .map(Pid::from_raw);
        let mut browser = Self {
            client,
            driver,
            group,
            profile,
            gateway: gateway.to_owned(),
            kind,
        };
        browser.be(kind).await;
        browser
    }

    /// From now on it is of this kind; whether scripts run was decided when it was opened.
    pub(crate) async fn be(&mut self, kind: Kind) {
        self.kind = kind;
        self.resize(if kind.narrow { 844 } else { 900 }).await;
        // A picture that is cut off below needs none.
        self.devtools("Emulation.setScrollbarsHidden", json!({"hidden": true}))
            .await;
        let scheme = if kind.dark { "dark" } else { "light" };
        let mut features = vec![json!({"name": "prefers-color-scheme", "value": scheme})];
        if self.kind.no_script {
            // The driver aims while a page still glides to where a click is wanted, and no script makes it jump.
            features.push(json!({"name": "prefers-reduced-motion", "value": "reduce"}));
        }
        let media = json!({ "features": features });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    async fn resize(&self, height: u64) {
        let width = if self.kind.narrow { 390 } else { 1440 };
        // A phone's scroll bar takes no room.
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": self.kind.narrow});
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// Opens another window, which is the one that is driven from then on.
    pub(crate) async fn window(&mut self) -> WindowHandle {
        self.another(false).await
    }

    /// The same with a tab: those behind it are not seen any more.
    pub(crate) async fn tab(&mut self) -> WindowHandle {
        self.another(true).await
    }

    async fn another(&mut self, as_tab: bool) -> WindowHandle {
        let window = self.client.new_window(as_tab).await.unwrap().handle;
        self.turn_to(&window).await;
        self.be(self.kind).await;
        window
    }

    pub(crate) async fn turn_to(&self, window: &WindowHandle) {
        let window = window.clone();
        self.client.switch_to_window(window).await.unwrap();
    }

    /// Each page of this window runs this before its own scripts.
    pub(crate) async fn begin_with(&self, script: &str) {
        let source = json!({ "source": script });
        self.devtools("Page.addScriptToEvaluateOnNewDocument", source)
            .await;
    }

    pub(crate) async fn go(&self, path: &str) {
        self.client
            .goto(&format!("{}{path}", self.gateway))
            .await
            .unwrap();
    }

    pub(crate) async fn path(&self) -> String {
        self.client.current_url().await.unwrap().path().to_owned()
    }

    pub(crate) async fn find(&self, css: &str) -> Element {
        let found = self
            .client
            .wait()
            .at_most(LIMIT)
            .for_element(Locator::Css(css))
            .await;
        found.unwrap_or_else(|error| panic!("no {css}: {error}"))
    }

    pub(crate) async fn count(&self, css: &str) -> usize {
        self.client.find_all(Locator::Css(css)).await.unwrap().len()
    }

    /// What an element shows; of a page that is just being left, it is asked again.
    pub(crate) async fn text(&self, css: &str) -> String {
        wait_until(css, LIMIT, async || self.find(css).await.text().await).await
    }

    /// Waits until an element shows this, on this page or the next.
    pub(crate) async fn shows(&self, css: &str, part: &str) {
        let what = format!("\"{part}\" in {css}");
        wait_until(&what, LIMIT, async || {
            let text = self.text(css).await;
            if text.contains(part) {
                Ok(())
            } else {
                Err(text)
            }
        })
        .await;
    }

    /// Clicks; on a page that moves meanwhile, it aims again. Not at what is below the balance, which stays in sight.
    pub(crate) async fn click(&self, css: &str) {
        wait_until(css, LIMIT, async || {
            let element = self.find(css).await;
            if !self.kind.no_script {
                let middle =
                    "document.querySelector(arguments[0])?.scrollIntoView({ block: 'center', behavior: 'instant' })";
                self.script_with(middle, vec![json!(css)]).await;
            }
            element.click().await
        })
        .await;
    }

    pub(crate) async fn double_click(&self, css: &str) {
        let element = self.find(css).await;
        let to = PointerAction::MoveToElement {
            element,
            duration: None,
            x: 0.0,
            y: 0.0,
        };
        let down = PointerAction::Down {
            button: MOUSE_BUTTON_LEFT,
        };
        let up = PointerAction::Up {
            button: MOUSE_BUTTON_LEFT,
        };
        let clicks = MouseActions::new("mouse".to_owned())
            .then(to)
            .then(down.clone())
            .then(up.clone())
            .then(down)
            .then(up);
        self.client.perform_actions(clicks).await.unwrap();
    }

    /// Shows the token and comes to the lab.
    pub(crate) async fn sign_in(&self, token: &str) {
        self.go("/lab/sign-in").await;
        self.fill("#token", token).await;
        self.click("main .btn-send").await;
        wait_until("the lab", LIMIT, async || self.path().await == "/lab").await;
    }

    /// Writes this into a field instead of what it says; into the new one, if the page draws it anew meanwhile.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        wait_until(css, LIMIT, async || {
            let field = self.find(css).await;
            field.clear().await?;
            field.send_keys(text).await
        })
        .await;
    }

    /// Selects what has this label; in the new list, if the page draws it anew meanwhile.
    pub(crate) async fn choose(&self, css: &str, label: &str) {
        wait_until(css, LIMIT, async || {
            let select = self.find(css).await;
            select.select_by_label(label).await
        })
        .await;
    }

    /// Presses keys where the focus is.
    pub(crate) async fn press(&self, keys: &str) {
        let mut each = KeyActions::new("keyboard".to_owned());
        for value in keys.chars() {
            each = each.then(KeyAction::Down { value });
            each = each.then(KeyAction::Up { value });
        }
        self.client.perform_actions(each).await.unwrap();
    }

    /// Writes and sends, and waits for the page after it.
    pub(crate) async fn send(&self, text: &str) {
        self.find("textarea").await.send_keys(text).await.unwrap();
        self.click(".btn-send").await;
        self.shows("#confirmation", "ccepted as #").await;
    }

    /// What the rows with this text show, on the page that is open.
    pub(crate) async fn rows_with(&self, text: &str) -> Vec<String> {
        wait_until("the rows", LIMIT, async || {
            let mut rows = Vec::new();
            for row in self.client.find_all(Locator::Css("tbody tr")).await? {
                let shown = row.text().await?;
                if shown.contains(text) {
                    rows.push(shown);
                }
            }
            Ok::<_, fantoccini::error::CmdError>(rows)
        })
        .await
    }

    pub(crate) async fn script(&self, script: &str) -> Value {
        self.script_with(script, Vec::new()).await
    }

    pub(crate) async fn script_with(&self, script: &str, arguments: Vec<Value>) -> Value {
        self.client.execute(script, arguments).await.unwrap()
    }

    /// What a script answers as soon as it is not null.
    pub(crate) async fn finds(&self, what: &str, script: &str, arguments: &[Value]) -> Value {
        wait_until(what, LIMIT, async || {
            let found = self.script_with(script, arguments.to_vec()).await;
            (!found.is_null()).then_some(found)
        })
        .await
    }

    /// How many pixels the page is wider than the window.
    pub(crate) async fn overflow(&self) -> i64 {
        let wide =
            "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.script(wide).await.as_i64().unwrap()
    }

    pub(crate) async fn session(&self) -> Option<String> {
        let cookie = self.client.get_named_cookie("unacked_session").await.ok()?;
        Some(cookie.value().to_owned())
    }

    /// A picture of the page, if pictures are wanted: `NAME-light-1440.png`.
    pub(crate) async fn picture(&self, name: &str) {
        let Some(folder) = pictures() else { return };
        std::fs::create_dir_all(&folder).unwrap();
        let whole = self
            .script("return document.documentElement.scrollHeight")
            .await;
        self.resize(whole.as_u64().unwrap().min(HIGHEST)).await;
        let format = json!({"format": "png"});
        let picture = self.devtools("Page.captureScreenshot", format).await["data"].take();
        let small = self.script_with(PALETTE, vec![picture]).await;
        let bytes = small.as_str().unwrap().chars();
        let picture: Vec<u8> = bytes.map(|byte| u8::try_from(byte).unwrap()).collect();
        let Kind { dark, narrow, .. } = self.kind;
        let light = if dark { "dark" } else { "light" };
        let width = if narrow { 390 } else { 1440 };
        std::fs::write(folder.join(format!("{name}-{light}-{width}.png")), picture).unwrap();
    }

    async fn devtools(&self, command: &'static str, parameters: Value) -> Value {
        let command = DevTools {
            command,
            parameters,
        };
        self.client.issue_cmd(command).await.unwrap()
    }

    /// Ends the browser in order; dropped, it is killed.
    pub(crate) async fn close(mut self) {
        if self.client.clone().close().await.is_ok() {
            self.group = None;
            let _ = self.driver.kill().await;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if let Some(group) = self.group {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

fn capabilities(profile: &std::path::Path, kind: Kind) -> Value {
    // 1 allows, 2 blocks.
    let script = if kind.no_script { 2 } else { 1 };
    json!({
        "goog:chromeOptions": {
            "args": [
                "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                "--no-first-run", "--disable-background-networking", "--disable-component-update",
                "--disable-sync", "--disable-quic",
                // A window behind another one goes on drawing.
                "--disable-backgrounding-occluded-windows", "--disable-renderer-backgrounding",
                "--disable-background-timer-throttling", format!("--user-data-dir={}", profile.display()),
            ],
            "prefs": {"profile.managed_default_content_settings.javascript": script},
        }
    })
}

/// A command of Chromium's own protocol.
#[derive(Debug)]
struct DevTools {
    command: &'static str,
    parameters: Value,
}

impl WebDriverCompatibleCommand for DevTools {
    fn endpoint(
        &self,
        base_url: &Url,
        session: Option<&str>,
    ) -> Result<Url, <Url as std::str::FromStr>::Err> {
        base_url.join(&format!(
            "session/{}/goog/cdp/execute",
            session.unwrap_or_default()
        ))
    }

    fn method_and_body(&self, _: &Url) -> (Method, Option<String>) {
        let body = json!({"cmd": self.command, "params": self.parameters});
        (Method::POST, Some(body.to_string()))
    }
}
