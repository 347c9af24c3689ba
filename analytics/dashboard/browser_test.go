package dashboard

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// A browser is a headless Chromium with one page, driven by the DevTools protocol over pipes.
type browser struct {
	t       *testing.T
	to      *os.File
	session string

	mu       sync.Mutex
	id       int
	waiting  map[int]chan message
	errors   []string // of the console, of scripts, and of the policy
	requests []string // URLs
}

type message struct {
	ID      int             `json:"id,omitempty"`
	Method  string          `json:"method,omitempty"`
	Session string          `json:"sessionId,omitempty"`
	Params  any             `json:"params,omitempty"`
	Result  json.RawMessage `json:"result,omitempty"`
	Error   *struct {
		Message string `json:"message"`
	} `json:"error,omitempty"`
}

// newBrowser starts Chromium. It ends with the test.
func newBrowser(t *testing.T) *browser {
	t.Helper()
	program, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("needs chromium: run scripts/deps.sh")
	}
	theirIn, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	// Root has no sandbox: it is only our own page that is opened.
	c := exec.Command(program, "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--user-data-dir="+t.TempDir(),
		"--no-first-run", "--disable-gpu",
		"--disable-dev-shm-usage", "--disable-background-networking", "--disable-component-update", "--disable-extensions",
		"--hide-scrollbars", "about:blank")
	c.ExtraFiles = []*os.File{theirIn, theirOut} // 3 and 4
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	theirIn.Close()
	theirOut.Close()
	b := &browser{t: t, to: in, waiting: map[int]chan message{}}
	go b.read(out)
	t.Cleanup(func() {
		b.session = ""
		b.call("Browser.close", nil)
		_ = c.Wait() // its directory can go then
		in.Close()
	})
	b.attach()
	return b
}

func (b *browser) attach() {
	var target struct{ TargetID string }
	b.result("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var session struct{ SessionID string }
	b.result("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &session)
	b.session = session.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "DOM"} {
		b.call(domain+".enable", nil)
	}
}

// read takes messages, which end with a zero byte.
func (b *browser) read(from *os.File) {
	defer from.Close()
	r := bufio.NewReader(from)
	for {
		data, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m struct {
			message
			Params json.RawMessage `json:"params"`
		}
		if json.Unmarshal(data[:len(data)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if c := b.waiting[m.ID]; c != nil {
			delete(b.waiting, m.ID)
			c <- m.message
		}
		b.event(m.Method, m.Params)
		b.mu.Unlock()
	}
}

func (b *browser) event(method string, params json.RawMessage) {
	var p struct {
		Type    string
		Request struct{ URL string }
		Entry   struct{ Level, Text, URL string }
	}
	_ = json.Unmarshal(params, &p) // what has none of these is none of the events below
	switch {
	case method == "Network.requestWillBeSent":
		b.requests = append(b.requests, p.Request.URL)
	case method == "Runtime.exceptionThrown", method == "Runtime.consoleAPICalled" && (p.Type == "error" || p.Type == "warning"):
		b.errors = append(b.errors, string(params))
	case method == "Log.entryAdded" && (p.Entry.Level == "error" || p.Entry.Level == "warning"):
		b.errors = append(b.errors, p.Entry.Text+" "+p.Entry.URL)
	}
}

// call sends a command and waits for its answer.
func (b *browser) call(method string, params any) json.RawMessage {
	b.t.Helper()
	b.mu.Lock()
	b.id++
	m := message{ID: b.id, Method: method, Session: b.session, Params: params}
	answer := make(chan message, 1)
	b.waiting[b.id] = answer
	b.mu.Unlock()
	data, err := json.Marshal(m)
	if err != nil {
		b.t.Fatal(err)
	}
	if _, err := b.to.Write(append(data, 0)); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
	select {
	case a := <-answer:
		if a.Error != nil {
			b.t.Fatalf("%s: %s", method, a.Error.Message)
		}
		return a.Result
	case <-time.After(20 * time.Second):
		b.t.Fatalf("%s: no answer", method)
	}
	return nil
}

func (b *browser) result(method string, params, out any) {
	b.t.Helper()
	if err := json.Unmarshal(b.call(method, params), out); err != nil {
		b.t.Fatalf("%s: %v", method, err)
	}
}

// eval returns the value of an expression in the page, as JSON decodes it.
func (b *browser) eval(expression string) any {
	b.t.Helper()
	var r struct {
		Result           struct{ Value any }
		ExceptionDetails *struct {
			Exception struct{ Description string }
		}
	}
	b.result("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true, "userGesture": true}, &r)
	if r.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", expression, r.ExceptionDetails.Exception.Description)
	}
	return r.Result.Value
}

// wait waits until an expression is true.
func (b *browser) wait(expression string) {
	b.t.Helper()
	for end := time.Now().Add(30 * time.Second); ; {
		if b.eval(expression) == true {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("never true: %s\nthe page shows:\n%s", expression, b.eval(`location.href + "\n" + document.body.innerText`))
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// open goes to a URL and waits until what it shows is there.
func (b *browser) open(url string) {
	b.t.Helper()
	b.eval(`document.getElementById("status")?.replaceChildren()`) // the page may be open, with something else behind the #
	b.call("Page.navigate", map[string]any{"url": url})
	b.loaded()
}

// loaded waits until the page has answers.
func (b *browser) loaded() {
	b.t.Helper()
	b.wait(`document.readyState === "complete" && /^(Loaded|Live)/.test(document.getElementById("status").textContent)`)
}

// click clicks the element in the way a mouse does.
func (b *browser) click(selector string) {
	b.t.Helper()
	b.wait(fmt.Sprintf(`document.querySelector(%q) !== null`, selector))
	p := b.eval(fmt.Sprintf(`(() => { const e = document.querySelector(%q); e.scrollIntoView({block: "center"});
		const r = e.getClientRects()[0]; return [r.x + r.width / 2, r.y + r.height / 2]; })()`, selector)).([]any)
	b.mouse("mousePressed", p[0], p[1])
	b.mouse("mouseReleased", p[0], p[1])
}

func (b *browser) mouse(kind string, x, y any) {
	b.call("Input.dispatchMouseEvent", map[string]any{"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})
}

func (b *browser) key(name string, code int, text string) {
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyDown", "key": name, "code": name, "windowsVirtualKeyCode": code, "text": text})
	b.call("Input.dispatchKeyEvent", map[string]any{"type": "keyUp", "key": name, "code": name, "windowsVirtualKeyCode": code})
}

// window sets the size of the page and the colours of the system.
func (b *browser) window(width, height int, colours string) {
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false})
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": colours}}})
}

// shoot keeps a picture of the whole page, where someone wants to look at it.
func (b *browser) shoot(name string) {
	b.t.Helper()
	dir := os.Getenv("CAUSEWAY_SCREENSHOTS")
	if dir == "" {
		return
	}
	time.Sleep(600 * time.Millisecond) // transitions
	var shot struct{ Data string }
	b.result("Page.captureScreenshot", map[string]any{"format": "png", "captureBeyondViewport": true}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), data, 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// clean fails the test if the console has errors, or if the page asked another host.
func (b *browser) clean(host string, allowed ...string) {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, e := range b.errors {
		known := false
		for _, a := range allowed {
			known = known || strings.Contains(e, a)
		}
		if !known {
			b.t.Errorf("console: %s", e)
		}
	}
	for _, u := range b.requests {
		if !strings.HasPrefix(u, host) && !strings.HasPrefix(u, "blob:"+host) && !strings.HasPrefix(u, "data:") && u != "about:blank" {
			b.t.Errorf("a request to %s", u)
		}
	}
	b.errors, b.requests = nil, nil
}
