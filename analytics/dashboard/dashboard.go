// Package dashboard serves the page that shows what the GraphQL API of analytics/graph answers: traffic, tunnels, attacks and nodes.
//
//	GET /           the page; what it shows stands behind the # of its address, which browsers do not send
//	GET /assets/... its scripts and styles
//
// The page is files that are embedded here and go out as they are. It asks nobody but the host that it came from: the API is
// expected at its usual path there. All data is shown as text; the policy in the headers forbids the rest a second time.
package dashboard

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strconv"
	"strings"
)

//go:embed static
var static embed.FS

// policy is the Content-Security-Policy: own files alone, nothing inline, no frame around the page. With trusted types no text
// becomes HTML or code, whatever a script does (W3C Trusted Types, 4.2).
const policy = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
	"require-trusted-types-for 'script'; trusted-types 'none'"

// A file is one that is served.
type file struct {
	kind         string // Content-Type
	plain, gzip  []byte
	plainTag     string // entity tag: the hash of the content
	gzipTag      string
	contentBytes string // length of plain, as header
	gzipBytes    string
}

// types are the media types by the end of the name: those of the machine's own tables differ from one to the next.
var types = map[string]string{
	".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8",
	".svg": "image/svg+xml", ".md": "text/plain; charset=utf-8", "": "text/plain; charset=utf-8",
}

// Handler returns what serves the page. It keeps no state and needs no sign-in: only the API knows anything.
func Handler() http.Handler {
	files, err := load()
	if err != nil { // a file of a kind that has no media type here: the tests find it
		panic(err)
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { serve(files, w, r) })
}

// load reads all files, by the path of their URL.
func load() (map[string]*file, error) {
	files := map[string]*file{}
	err := fs.WalkDir(static, "static", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		content, err := static.ReadFile(name)
		if err != nil {
			return err
		}
		kind, ok := types[path.Ext(name)]
		if !ok {
			return fmt.Errorf("dashboard: %s: no media type is known for it: add it to types", name)
		}
		files[address(name)] = newFile(kind, content)
		return nil
	})
	return files, err
}

// address is the path of the URL of an embedded file.
func address(name string) string {
	if name == "static/index.html" {
		return "/"
	}
	return "/assets/" + strings.TrimPrefix(name, "static/")
}

func newFile(kind string, content []byte) *file {
	sum := sha256.Sum256(content)
	tag := hex.EncodeToString(sum[:16])
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestCompression) // the level exists
	_, _ = z.Write(content)                               // into memory
	_ = z.Close()
	return &file{kind: kind, plain: content, gzip: b.Bytes(), plainTag: strconv.Quote(tag), gzipTag: strconv.Quote(tag + "-gzip"),
		contentBytes: strconv.Itoa(len(content)), gzipBytes: strconv.Itoa(b.Len())}
}

func serve(files map[string]*file, w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Frame-Options", "DENY") // for browsers that do not know frame-ancestors
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	f := files[r.URL.Path]
	switch {
	case f == nil:
		fail(w, http.StatusNotFound, "nothing is here: the dashboard is at /, and shows its pages behind the #")
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		h.Set("Allow", "GET, HEAD")
		fail(w, http.StatusMethodNotAllowed, r.Method+" is not served here: use GET")
	default:
		f.serve(w, r)
	}
}

func fail(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	_, _ = fmt.Fprintln(w, message) // a client that has gone needs no answer
}

// serve sends the file, or that it has not changed. Browsers ask each time, so a page is never made of files of two versions.
func (f *file) serve(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	content, tag, length := f.plain, f.plainTag, f.contentBytes
	if gzipped(r.Header.Get("Accept-Encoding")) {
		content, tag, length = f.gzip, f.gzipTag, f.gzipBytes
		h.Set("Content-Encoding", "gzip")
	}
	h.Set("Cache-Control", "no-cache")
	h.Set("Vary", "Accept-Encoding")
	h.Set("ETag", tag)
	if matches(r.Header.Get("If-None-Match"), tag) {
		h.Del("Content-Encoding")
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", f.kind)
	h.Set("Content-Length", length)
	if r.Method == http.MethodGet {
		_, _ = w.Write(content) // a client that has gone needs no answer
	}
}

// gzipped reports whether a client takes gzip (RFC 9110, 12.5.3). Those that weigh it against others are sent the plain file.
func gzipped(accept string) bool {
	for coding := range strings.SplitSeq(accept, ",") {
		if strings.TrimSpace(coding) == "gzip" {
			return true
		}
	}
	return false
}

// matches reports whether If-None-Match names the tag, compared weakly (RFC 9110, 13.1.2).
func matches(header, tag string) bool {
	for t := range strings.SplitSeq(header, ",") {
		if t = strings.TrimSpace(t); t == "*" || strings.TrimPrefix(t, "W/") == tag {
			return true
		}
	}
	return false
}
