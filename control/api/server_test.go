package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"causeway/config"
)

var update = flag.Bool("update", false, "write testdata instead of comparing with it")

// filled answers with every field set, so that the golden files hold every name.
type filled struct{ reload error }

func (filled) Tunnels() []Tunnel       { return []Tunnel{fill[Tunnel]()} }
func (filled) Neighbours() []Neighbour { return []Neighbour{fill[Neighbour]()} }
func (filled) Workers() Workers        { return fill[Workers]() }
func (filled) SAs() []SA               { return []SA{fill[SA]()} }
func (filled) IKE() []IKE              { return []IKE{fill[IKE]()} }
func (filled) Health() []Health        { return []Health{fill[Health]()} }
func (filled) History() []HealthEvent  { return []HealthEvent{fill[HealthEvent]()} }
func (filled) Drops() []Drop           { return []Drop{fill[Drop]()} }
func (filled) Ports() []Port           { return []Port{fill[Port]()} }
func (filled) Status() Status          { return fill[Status]() }
func (filled) Nodes() []ClusterNode    { return []ClusterNode{fill[ClusterNode]()} }
func (filled) Cluster() Cluster        { return fill[Cluster]() }
func (filled) Fleet(bool) Fleet        { return fill[Fleet]() }
func (filled) Routes() iter.Seq[Route] {
	return slices.Values([]Route{fill[Route](), fill[Route]()})
}
func (filled) CommandIKE(_ context.Context, command, tunnel string) error {
	if tunnel != "cust-a" {
		return errors.New("there is no tunnel " + tunnel)
	}
	return nil
}
func (filled) ExportKeys(string, time.Duration) (KeyFile, error) { return fill[KeyFile](), nil }
func (filled) Rebalance() Rebalanced                             { return fill[Rebalanced]() }
func (f filled) Drain(context.Context, time.Duration) (Drained, error) {
	return fill[Drained](), f.reload
}
func (f filled) Apply(_ context.Context, d *config.Fleet, dry bool) (Applied, error) {
	if string(d.Text) != "tunnels: []" || string(d.Secrets["file:/a"]) != "key" {
		return Applied{}, fmt.Errorf("%q came", d.Text)
	}
	a := fill[Applied]()
	if dry {
		a.Serial = 0
	}
	return a, f.reload
}
func (filled) Capture(ctx context.Context, q CaptureRequest, emit func(CaptureEvent) error) error {
	if q.Filter == "wrong" {
		return errors.New("filter: word 1, \"wrong\"")
	}
	p := fill[CapturedPacket]()
	for _, e := range []CaptureEvent{{Begun: &q}, {Packet: &p}, {}, {Counts: new(fill[CaptureCounts]())}} {
		if err := emit(e); err != nil {
			return err
		}
	}
	switch q.Filter {
	case "breaks":
		return errors.New("it broke")
	case "waits":
		<-ctx.Done()
		return ctx.Err()
	}
	return emit(CaptureEvent{Ended: new(fill[CaptureEnd]())})
}
func (f filled) Reload() (Reload, error) { return fill[Reload](), f.reload }

// fill sets each field of a T to its number.
func fill[T any]() (v T) {
	n := 0
	set(reflect.ValueOf(&v).Elem(), &n)
	return v
}

func set(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(int64(*n), 0).UTC()))
			return
		}
		for i := range v.NumField() {
			set(v.Field(i), n)
		}
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		set(v.Elem(), n)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		set(v.Index(0), n)
	case reflect.Map:
		e := reflect.New(v.Type().Elem()).Elem()
		set(e, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("key"), e)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Float64:
		v.SetFloat(float64(*n) + 0.5)
	case reflect.Uint8:
		v.SetUint(uint64(*n))
	case reflect.Int:
		v.SetInt(int64(*n))
	case reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		panic(v.Kind())
	}
}

// The field names are a contract. A name may be added; a diff that takes one away breaks somebody's scripts.
func TestJSONIsAContract(t *testing.T) {
	srv := httptest.NewServer(NewHandler(filled{}))
	defer srv.Close()
	for _, what := range []string{"tunnels", "routes", "neighbours", "workers", "drops", "ports", "sas", "ike", "health", "history", "nodes", "cluster", "fleet", "status", "reload"} {
		var resp *http.Response
		var err error
		if what == "reload" {
			resp, err = http.Post(srv.URL+"/v1/"+what, "", nil)
		} else {
			resp, err = http.Get(srv.URL + "/v1/" + what)
		}
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		var pretty bytes.Buffer
		if err := json.Indent(&pretty, bytes.TrimSpace(body), "", "  "); err != nil {
			t.Fatalf("%s: %v in %s", what, err, body)
		}
		pretty.WriteByte('\n')
		golden := filepath.Join("testdata", what+".json")
		if *update {
			if err := os.WriteFile(golden, pretty.Bytes(), 0o644); err != nil {
				t.Fatal(err)
			}
			continue
		}
		want, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(want, pretty.Bytes()) {
			t.Errorf("%s: the answer is\n%s\nand not as in %s", what, pretty.String(), golden)
		}
	}
}

func TestAnEmptyListOfRoutesIsAList(t *testing.T) {
	w := httptest.NewRecorder()
	stream(w, func(func(Route) bool) {})
	if got := w.Body.String(); got != "[]\n" {
		t.Errorf("answer %q", got)
	}
}

func TestShowingDoesNotChangeAndReloadingIsNotShowing(t *testing.T) {
	h := NewHandler(filled{})
	for _, c := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/v1/reload", http.StatusMethodNotAllowed},
		{"POST", "/v1/tunnels", http.StatusMethodNotAllowed},
		{"GET", "/v1/ike/terminate", http.StatusMethodNotAllowed},
		{"POST", "/v1/ike/terminate?tunnel=cust-a", http.StatusOK},
		{"POST", "/v1/ike/terminate?tunnel=cust-b", http.StatusUnprocessableEntity},
		{"POST", "/v1/ike/export-keys?tunnel=cust-a&for=5m", http.StatusOK},
		{"POST", "/v1/ike/export-keys?tunnel=cust-a", http.StatusUnprocessableEntity},
		{"POST", "/v1/ike/forget?tunnel=cust-a", http.StatusNotFound},
		{"GET", "/v1/keys", http.StatusNotFound},
		{"GET", "/", http.StatusNotFound},
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(c.method, c.path, nil))
		if w.Code != c.want {
			t.Errorf("%s %s: status %d, want %d", c.method, c.path, w.Code, c.want)
		}
	}
}

func TestApply(t *testing.T) {
	d := &config.Fleet{Name: "f.yaml", Text: []byte("tunnels: []"), Secrets: map[string][]byte{"file:/a": []byte("key")}}
	c := NewClient(serve(t, filled{}))
	for _, dry := range []bool{false, true} {
		a, err := c.Apply(d, dry)
		if err != nil || len(a.TunnelsAdded) != 1 || (a.Serial == 0) != dry {
			t.Errorf("dry %v: %+v, %v", dry, a, err)
		}
	}
	if _, err := NewClient(serve(t, filled{reload: errors.New("f.yaml:1:1: a mistake")})).Apply(d, false); err == nil || err.Error() != "f.yaml:1:1: a mistake" {
		t.Errorf("a mistake: %v", err)
	}
	for body, want := range map[string]int{"": http.StatusUnprocessableEntity, "{": http.StatusUnprocessableEntity, `{"text":7}`: http.StatusUnprocessableEntity} {
		w := httptest.NewRecorder()
		NewHandler(filled{}).ServeHTTP(w, httptest.NewRequest("POST", "/v1/apply", strings.NewReader(body)))
		if w.Code != want {
			t.Errorf("%q: status %d, want %d", body, w.Code, want)
		}
	}
}

// serve answers on a socket until the test ends.
func serve(t *testing.T, n Node) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Serve(t.Context(), l, n) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func TestClientAsksTheDaemon(t *testing.T) {
	c := NewClient(serve(t, filled{errors.New("causeway.yaml:3:1: no such thing")}))
	var routes []Route
	if err := c.Show("routes", &routes); err != nil || len(routes) != 2 || routes[1] != fill[Route]() {
		t.Errorf("routes %+v, %v", routes, err)
	}
	if _, err := c.Reload(); err == nil || err.Error() != "causeway.yaml:3:1: no such thing" {
		t.Errorf("a refused reload: %v", err)
	}
	if err := c.Show("nothing", &routes); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("an unknown list: %v", err)
	}
	err := NewClient("/nonexistent/s").Show("routes", &routes)
	if err == nil || !strings.Contains(err.Error(), "no daemon answers there") {
		t.Errorf("no daemon: %v", err)
	}
}

func TestSocketIsItsOwnersAlone(t *testing.T) {
	info, err := os.Stat(serve(t, filled{}))
	if err != nil {
		t.Fatal(err)
	}
	if p := info.Mode().Perm(); p != 0o600 {
		t.Errorf("mode %o", p)
	}
}

func TestSecondDaemonIsRefused(t *testing.T) {
	path := serve(t, filled{})
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("error %v", err)
	}
	if err := NewClient(path).Show("status", &Status{}); err != nil {
		t.Errorf("the first daemon does not answer any more: %v", err)
	}
}

func TestStaleSocketIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}

func TestOtherFilesAreNotRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "precious")
	if err := os.WriteFile(path, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}
