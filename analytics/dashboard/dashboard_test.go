package dashboard

import (
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"causeway/analytics/dataset"
)

func get(t *testing.T, method, path string, headers ...string) *http.Response {
	t.Helper()
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i+1 < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	w := httptest.NewRecorder()
	Handler().ServeHTTP(w, r)
	return w.Result()
}

func body(t *testing.T, r *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// onDisk are the files of the source tree by their path below static.
func onDisk(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir("static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := os.ReadFile(name)
		files[strings.TrimPrefix(filepath.ToSlash(name), "static/")] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestEveryFile(t *testing.T) {
	kinds := map[string]string{".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml",
		".md": "text/plain", "": "text/plain"}
	for name, content := range onDisk(t) {
		path := "/assets/" + name
		if name == "index.html" {
			path = "/"
		}
		r := get(t, "GET", path)
		if r.StatusCode != http.StatusOK || body(t, r) != content {
			t.Errorf("%s: status %d, or another content than the file", path, r.StatusCode)
		}
		if kind := r.Header.Get("Content-Type"); !strings.HasPrefix(kind, kinds[filepath.Ext(name)]) {
			t.Errorf("%s: Content-Type %q", path, kind)
		}
		sum := sha256.Sum256([]byte(content))
		if want := `"` + hex.EncodeToString(sum[:16]) + `"`; r.Header.Get("ETag") != want {
			t.Errorf("%s: ETag %s, want %s", path, r.Header.Get("ETag"), want)
		}
	}
}

func TestHeaders(t *testing.T) {
	for _, path := range []string{"/", "/assets/js/main.js", "/nothing"} {
		h := get(t, "GET", path).Header
		for name, want := range map[string]string{
			"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY",
			"Cross-Origin-Resource-Policy": "same-origin",
		} {
			if h.Get(name) != want {
				t.Errorf("%s: %s is %q, want %q", path, name, h.Get(name), want)
			}
		}
		csp := h.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: policy %q allows too much", path, csp)
		}
	}
}

func TestRefused(t *testing.T) {
	for _, path := range []string{"/index.html", "/assets", "/assets/", "/assets/index.html", "/assets/js", "/assets/../dashboard.go",
		"/assets/js/../js/main.js", "/favicon.ico", "/client/v4/graphql"} {
		if r := get(t, "GET", path); r.StatusCode != http.StatusNotFound || r.Header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: status %d, Cache-Control %q", path, r.StatusCode, r.Header.Get("Cache-Control"))
		}
	}
	if r := get(t, "POST", "/"); r.StatusCode != http.StatusMethodNotAllowed || r.Header.Get("Allow") != "GET, HEAD" {
		t.Errorf("POST: status %d, Allow %q", r.StatusCode, r.Header.Get("Allow"))
	}
	if r := get(t, "HEAD", "/"); r.StatusCode != http.StatusOK || body(t, r) != "" || r.Header.Get("Content-Length") == "" {
		t.Errorf("HEAD: status %d, Content-Length %q", r.StatusCode, r.Header.Get("Content-Length"))
	}
}

func TestCaching(t *testing.T) {
	const path = "/assets/js/main.js"
	tag := get(t, "GET", path).Header.Get("ETag")
	for _, header := range []string{tag, "W/" + tag, `"a", ` + tag, "*"} {
		if r := get(t, "GET", path, "If-None-Match", header); r.StatusCode != http.StatusNotModified || body(t, r) != "" {
			t.Errorf("If-None-Match %s: status %d", header, r.StatusCode)
		}
	}
	if r := get(t, "GET", path, "If-None-Match", `"other"`); r.StatusCode != http.StatusOK {
		t.Errorf("another tag: status %d", r.StatusCode)
	}
	packed := get(t, "GET", path, "Accept-Encoding", "br, gzip")
	if packed.Header.Get("Content-Encoding") != "gzip" || packed.Header.Get("ETag") == tag || packed.Header.Get("Vary") != "Accept-Encoding" {
		t.Errorf("gzip: %v", packed.Header)
	}
	z, err := gzip.NewReader(packed.Body)
	if err != nil {
		t.Fatal(err)
	}
	if content, err := io.ReadAll(z); err != nil || string(content) != onDisk(t)["js/main.js"] {
		t.Errorf("gzip: another content, %v", err)
	}
	if r := get(t, "GET", path, "Accept-Encoding", "gzip;q=0"); r.Header.Get("Content-Encoding") != "" {
		t.Error("gzip was sent to one that refuses it")
	}
}

// No file of ours leads a browser elsewhere, and none makes HTML or code of text.
func TestOwnFiles(t *testing.T) {
	outside := regexp.MustCompile(`(?i)\b(https?|wss?|ftp):|["'(]//\w`)
	making := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|` +
		`\beval\(|new Function|srcdoc|DOMParser|setAttribute\("(on|style)`)
	inline := regexp.MustCompile(`(?i)<style|\sstyle=|\son\w+=|<script(?:\s[^>]*)?>[^<]`)
	for name, content := range onDisk(t) {
		if strings.HasPrefix(name, "vendor/") {
			continue
		}
		// The name of SVG's vocabulary is no address that anybody asks, and the word that says how to open the page on loopback is none.
		for _, known := range []string{`xmlns="http://www.w3.org/2000/svg"`, "Open this page as http://localhost"} {
			content = strings.ReplaceAll(content, known, "")
		}
		if found := outside.FindString(content); found != "" {
			t.Errorf("%s: %s leads elsewhere", name, found)
		}
		if found := making.FindString(content); found != "" {
			t.Errorf("%s: %s", name, found)
		}
		if strings.HasSuffix(name, ".html") && inline.MatchString(content) {
			t.Errorf("%s: %s is inline: the policy forbids it", name, inline.FindString(content))
		}
	}
}

// Each script that is imported is there, and each that is there is imported.
func TestImports(t *testing.T) {
	files, reached := onDisk(t), map[string]bool{"js/theme.js": true}
	imports := regexp.MustCompile(`(?m)from "([^"]+)";$`)
	var follow func(name string)
	follow = func(name string) {
		if reached[name] {
			return
		}
		reached[name] = true
		content, ok := files[name]
		if !ok {
			t.Fatalf("%s is imported and is not there", name)
		}
		for _, m := range imports.FindAllStringSubmatch(content, -1) {
			follow(filepath.ToSlash(filepath.Join(filepath.Dir(name), m[1])))
		}
	}
	follow("js/main.js")
	for name := range files {
		if strings.HasSuffix(name, ".js") && !reached[name] {
			t.Errorf("%s is imported by no script", name)
		}
	}
}

func TestVendored(t *testing.T) {
	files := onDisk(t)
	readme := files["vendor/uplot/README.md"]
	for _, name := range []string{"uPlot.esm.js", "uPlot.min.css", "LICENSE"} {
		if line := fmt.Sprintf("%x  %s\n", sha256.Sum256([]byte(files["vendor/uplot/"+name])), name); !strings.Contains(readme, line) {
			t.Errorf("%s is not what README.md says it is", name)
		}
	}
	if !strings.Contains(files["vendor/uplot/uPlot.esm.js"], "v1.6.32") || !strings.Contains(readme, "1.6.32") {
		t.Error("the version of README.md is not that of the file")
	}
}

// The explorer offers every dimension of packets that can have a value, with the right type.
func TestDimensions(t *testing.T) {
	offered := map[string]bool{} // name: whether it is a number
	for _, m := range regexp.MustCompile(`\["(#?)([a-zA-Z0-9]+)", "`).FindAllStringSubmatch(onDisk(t)["js/dimensions.js"], -1) {
		if _, twice := offered[m[2]]; twice {
			t.Errorf("%s is offered twice", m[2])
		}
		offered[m[2]] = m[1] == "#"
	}
	for _, d := range dataset.Packets.Dimensions {
		number, ok := offered[d.Name]
		wanted := d.Bucket == 0 && d.SQL != "''" && d.Name != "mitigationSystem"
		if ok != wanted || ok && number != slices.Contains([]dataset.Type{dataset.Uint8, dataset.Uint16, dataset.Uint32, dataset.Uint64}, d.Type) {
			t.Errorf("%s, %s: offered %t as number %t", d.Name, d.Type, ok, number)
		}
		delete(offered, d.Name)
	}
	for name := range offered {
		t.Errorf("%s is offered and is no dimension", name)
	}
}
