package clickhouse

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"causeway/analytics/store"
	"causeway/analytics/store/storetest"
)

// A stub answers as a server does, and remembers the rows that it was given.
type stub struct {
	*httptest.Server
	mu      sync.Mutex
	rows    []string                                     // first field of each row of traffic, in order
	ids     []string                                     // of the requests that brought them
	answer  func(query string) (status int, text string) // nil: all is well
	headers []string
}

func newStub(t *testing.T) *stub {
	s := &stub{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		q := r.URL.Query().Get("query")
		user, password, _ := r.BasicAuth()
		s.headers = append(s.headers, user+":"+password)
		if s.answer != nil {
			if status, text := s.answer(q); status != http.StatusOK {
				w.WriteHeader(status)
				fmt.Fprint(w, text)
				return
			}
		}
		if !strings.HasPrefix(q, "INSERT INTO traffic_1s") {
			return
		}
		f, _, err := r.FormFile("b")
		if err != nil {
			t.Error(err)
			return
		}
		s.ids = append(s.ids, r.URL.Query().Get("query_id"))
		for lines := bufio.NewScanner(f); lines.Scan(); {
			first, _, _ := strings.Cut(lines.Text(), "\t")
			s.rows = append(s.rows, first)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *stub) set(answer func(string) (int, string)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *stub) got() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.rows)
}

func openAt(t testing.TB, url, dir string, change func(*Options)) *Store {
	t.Helper()
	o := Options{URL: url, Node: "edge-1", Buffer: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: func() time.Time { return storetest.Noon }}
	if change != nil {
		change(&o)
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.lock.Close() })
	return s
}

// second is a batch of one row, which is so many seconds after noon less an hour.
func second(n int64) *store.Batch {
	return &store.Batch{Place: storetest.Places[0], Traffic: []store.Traffic{{Time: storetest.Noon.Unix() - 3600 + n, Account: "acme",
		Tunnel: storetest.AcmeA, Packets: 1}}}
}

func write(t testing.TB, s *Store, from, to int64) {
	t.Helper()
	for n := from; n < to; n++ {
		if err := s.Write(context.Background(), second(n)); err != nil {
			t.Fatal(err)
		}
	}
}

func seconds(from, to int64) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, strconv.FormatInt(storetest.Noon.Unix()-3600+n, 10))
	}
	return out
}

func away(string) (int, string) { return http.StatusServiceUnavailable, "the proxy has nobody to ask" }

// Rows wait while the server is away, over a restart, and come in order, under the same ids when they are sent again.
func TestBuffer(t *testing.T) {
	x, dir := newStub(t), t.TempDir()
	x.set(away)
	s := openAt(t, x.URL, dir, nil)
	for n := range int64(3) {
		write(t, s, 5*n, 5*n+5)
		if err := s.Flush(context.Background()); err == nil || !strings.Contains(err.Error(), "503") {
			t.Fatalf("the server is away: %v", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openAt(t, x.URL, dir, nil)
	write(t, s, 15, 20)
	failed := map[string]bool{}
	x.set(func(q string) (int, string) { // each of its first tries fails
		if strings.HasPrefix(q, "INSERT INTO traffic_1s") && !failed[q] {
			failed[q] = true
			return http.StatusInternalServerError, "Code: 241, e.displayText() = DB::Exception: Memory limit"
		}
		return http.StatusOK, ""
	})
	for range 100 {
		if s.Flush(context.Background()) == nil {
			break
		}
	}
	if got := x.got(); !slices.Equal(got, seconds(0, 20)) {
		t.Errorf("the server got %v", got)
	}
	if len(failed) < 2 || len(x.ids) != len(failed) {
		t.Errorf("%d inserts of %d", len(x.ids), len(failed))
	}
	st := s.Stats()
	left, err := filepath.Glob(filepath.Join(dir, "*"+segmentEnd))
	if st.Buffered != 0 || st.Sent != 20 || len(left) != 0 || err != nil {
		t.Errorf("%+v %v %v", st, left, err)
	}
}

// A full buffer drops the oldest rows, and says how many.
func TestFullBuffer(t *testing.T) {
	x := newStub(t)
	x.set(away)
	s := openAt(t, x.URL, t.TempDir(), func(o *Options) { o.MaxBuffer = 8 << 10 })
	write(t, s, 0, 200)
	st := s.Stats()
	if st.Buffered > 8<<10 || st.Buffered < 4<<10 || st.Lost == 0 {
		t.Fatalf("%+v", st)
	}
	x.set(nil)
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if got := x.got(); !slices.Equal(got, seconds(int64(st.Lost), 200)) {
		t.Errorf("%d were lost, and %d came", st.Lost, len(got))
	}
}

// Rows that a server will never take do not hold up those that follow; what else it refuses waits.
func TestRefused(t *testing.T) {
	x := newStub(t)
	s := openAt(t, x.URL, t.TempDir(), nil)
	write(t, s, 0, 3)
	for text, waits := range map[string]bool{"Code: 516, Authentication failed": true, "Code: 252, Too many parts": true,
		"Code: 60, no such table": true, "": true} {
		x.set(func(q string) (int, string) {
			if strings.HasPrefix(q, "INSERT INTO traffic_1s") {
				return http.StatusInternalServerError, text
			}
			return http.StatusOK, ""
		})
		if err := s.Flush(context.Background()); (err != nil) != waits {
			t.Errorf("%q: %v", text, err)
		}
	}
	x.set(func(q string) (int, string) {
		if strings.HasPrefix(q, "INSERT INTO traffic_1s") && strings.Contains(q, "FROM b WHERE") {
			return http.StatusBadRequest, "Code: 27, e.displayText() = DB::Exception: Cannot parse input"
		}
		return http.StatusOK, ""
	})
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	x.set(nil)
	write(t, s, 3, 5)
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	if st := s.Stats(); st.Refused != 3 || st.Sent != 2 || !slices.Equal(x.got(), seconds(3, 5)) {
		t.Errorf("%+v %v", st, x.got())
	}
}

// Run sends by itself, goes on when the server is back, and ends when it should; Close sends the rest.
func TestRun(t *testing.T) {
	x := newStub(t)
	s := openAt(t, x.URL, t.TempDir(), nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	write(t, s, 0, 2)
	go func() {
		s.Run(ctx)
		close(done)
	}()
	for deadline := time.Now().Add(10 * time.Second); len(x.got()) < 2; time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is sent")
		}
	}
	cancel()
	<-done
	write(t, s, 2, 4)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if got := x.got(); !slices.Equal(got, seconds(0, 4)) {
		t.Errorf("%v", got)
	}
}

// The password goes to the server that is named, and nowhere else.
func TestPassword(t *testing.T) {
	other := newStub(t)
	x := newStub(t)
	redirecting := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
	defer redirecting.Close()
	const password = "Gehe1m/s"
	for _, at := range []string{x.URL, redirecting.URL, "http://127.0.0.1:1"} {
		s := openAt(t, strings.Replace(at, "//", "//edge@", 1), t.TempDir(), func(o *Options) { o.Password = password })
		x.set(func(string) (int, string) { return http.StatusForbidden, "Code: 516, edge with Gehe1m/s is nobody" })
		if err := s.Flush(context.Background()); err == nil || strings.Contains(err.Error(), "Gehe1m") || strings.Contains(err.Error(), "CREATE") {
			t.Errorf("%v", err)
		}
	}
	if !slices.Contains(x.headers, "edge:"+password) || len(other.headers) > 0 {
		t.Errorf("%v %v", x.headers, other.headers)
	}
	for url, want := range map[string]string{"http://e:Gehe1m@h\x7f/": "cannot be read", "ftp://e:Gehe1m@h/": "is not one such as",
		"http://h/?user=Gehe1m": "is not one",
		"http://h/a-b":          `"a-b"`, "": "is not one", "http://e:Gehe1m@h/x": "has a password, and there is another"} {
		_, err := Open(Options{URL: url, Password: password, Node: "n", Buffer: t.TempDir(), Log: slog.Default()})
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "e:Gehe1m") {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
}

// A batch of another node, or of another time, is refused as a whole.
func TestWrongBatch(t *testing.T) {
	s := openAt(t, "http://127.0.0.1:1", t.TempDir(), nil)
	b := second(0)
	b.Place.Node = "edge-2"
	if err := s.Write(context.Background(), b); err == nil || !strings.Contains(err.Error(), `node "edge-2"`) {
		t.Error(err)
	}
	for _, at := range []int64{0, -5, storetest.Noon.Unix() + 2*daySeconds} {
		b := second(0)
		b.Traffic = append(b.Traffic, b.Traffic[0])
		b.Traffic[1].Time = at
		if err := s.Write(context.Background(), b); err == nil || !strings.Contains(err.Error(), "compare the clocks") {
			t.Errorf("%d: %v", at, err)
		}
	}
	if st := s.Stats(); st.Buffered != 0 {
		t.Errorf("%+v", st)
	}
	if _, err := Open(s.o); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a second store with the same buffer: %v", err)
	}
}

// child is the environment variable that makes this binary a writer into the directory that it names; with a server behind it, a sender too.
const child = "CAUSEWAY_CLICKHOUSE_CHILD"

func TestMain(m *testing.M) {
	dir, url, sends := strings.Cut(os.Getenv(child), "|")
	switch {
	case sends:
		sendOn(dir, url)
	case dir != "":
		writeOn(dir)
	}
	os.Exit(m.Run())
}

// writeOn writes one second after the other, and says which one is written, until it is killed.
func writeOn(dir string) {
	s, err := Open(Options{URL: "http://127.0.0.1:1", Node: "edge-1", Buffer: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: func() time.Time { return storetest.Noon }})
	for n := int64(0); err == nil; n++ {
		err = s.Write(context.Background(), second(n%3600))
		fmt.Println(n)
		if n%50 == 49 {
			_, err = s.buffer.seal()
		}
	}
	panic(err)
}

// What Write has returned for is sent, once, after the process was killed in the middle of whatever it did.
func TestKilled(t *testing.T) {
	dir := t.TempDir()
	c := exec.Command(os.Args[0])
	c.Env, c.Stderr = append(os.Environ(), child+"="+dir), os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	written := int64(0)
	for lines := bufio.NewScanner(out); lines.Scan(); written++ {
		if written == 130 {
			if err := c.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	_ = c.Wait() // it was killed
	x := newStub(t)
	s := openAt(t, x.URL, dir, nil)
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := x.got()
	if n := int64(len(got)); n < written || n > written+1 || !slices.Equal(got, seconds(0, n)) {
		t.Errorf("%d seconds came of %d", n, written)
	}
}

// A file that ends in half a record, or is not one at all, gives what is whole in it.
func TestTornSegment(t *testing.T) {
	dir := t.TempDir()
	s := openAt(t, "http://127.0.0.1:1", dir, nil)
	ends := []int64{0}
	for n := range int64(3) {
		write(t, s, n, n+1)
		ends = append(ends, s.buffer.open.bytes)
	}
	path := s.buffer.path(s.buffer.open)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_ = s.lock.Close()
	for cut := range len(whole) {
		if err := os.WriteFile(path, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		b, err := openBuffer(dir, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		x := b.first()
		chunks, damaged, err := b.read(x)
		n := uint64(0)
		for _, c := range chunks {
			n += uint64(c.rows)
		}
		last, exact := slices.BinarySearch(ends, int64(cut)) // the first end that is not before the cut
		if !exact {
			last--
		}
		if err != nil || n != x.rows || n != uint64(last) || damaged == exact {
			t.Fatalf("cut at %d of %d: %d rows, counted %d, damaged %v, %v", cut, len(whole), n, x.rows, damaged, err)
		}
	}
}

// A disk that is full makes an error, and leaves what was written before as it was.
func TestNoRoom(t *testing.T) {
	s := openAt(t, "http://127.0.0.1:1", t.TempDir(), nil)
	write(t, s, 0, 1)
	good := s.buffer.file
	s.buffer.file, _ = os.Open(os.DevNull) // cannot be written
	if err := s.Write(context.Background(), second(1)); err == nil || !strings.Contains(err.Error(), "buffer "+s.o.Buffer) {
		t.Errorf("%v", err)
	}
	s.buffer.file = good
	write(t, s, 1, 2)
	if _, err := s.buffer.seal(); err != nil {
		t.Fatal(err)
	}
	if chunks, damaged, err := s.buffer.read(s.buffer.first()); err != nil || damaged || len(chunks) != 1 || chunks[0].rows != 2 {
		t.Errorf("%v %v %v", chunks, damaged, err)
	}
}

// A context that ends is what a question returns.
func TestAnswerNotThere(t *testing.T) {
	stuck := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // else the end of the connection is not seen
		<-r.Context().Done()
	}))
	defer stuck.Close()
	s := openAt(t, stuck.URL, t.TempDir(), func(o *Options) { o.SendTimeout = 100 * time.Millisecond })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if _, err := s.Groups(ctx, aQuery()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	s.killing.Wait()
}
