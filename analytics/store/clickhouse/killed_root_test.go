package clickhouse

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"causeway/analytics/store/storetest"
)

// sendOn writes one second after the other, from the one on that standard input names, says which one is written, and sends and rolls up at the
// same time, until it is killed.
func sendOn(dir, url string) {
	var n int64
	_, err := fmt.Scan(&n)
	if err != nil {
		panic(err)
	}
	s, err := Open(Options{URL: url, Password: serverPassword, Node: "edge-1", Buffer: dir, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
		Now: func() time.Time { return storetest.Noon }})
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			if err := s.Flush(context.Background()); err != nil {
				panic(err)
			}
		}
	}()
	for ; err == nil; n++ {
		err = s.Write(context.Background(), second(n))
		fmt.Println(n)
		time.Sleep(5 * time.Millisecond)
	}
	panic(err)
}

// The process is killed again and again while it writes, sends and rolls up. What Write has returned for is on the server, once, in seconds and in
// minutes, when the next one has sent what the last one left; nobody has to do anything for it.
func TestRootKilled(t *testing.T) {
	server, dir := startServer(t), t.TempDir()
	var written []int64
	for round, next := range []int64{0, 1000, 2000, 3000} {
		c := exec.Command(os.Args[0])
		c.Env, c.Stderr, c.Stdin = append(os.Environ(), child+"="+dir+"|"+server.url("killed")), os.Stderr, strings.NewReader(fmt.Sprint(next))
		out, err := c.StdoutPipe()
		if err == nil {
			err = c.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		time.AfterFunc(time.Duration(1500+rand.IntN(500))*time.Millisecond, func() { _ = c.Process.Kill() }) // whatever it does then
		for lines := bufio.NewScanner(out); lines.Scan(); {
			n, err := strconv.ParseInt(lines.Text(), 10, 64)
			if err != nil || n >= next+599 { // then rounds would overlap
				t.Fatal(n, err)
			}
			written = append(written, n)
		}
		if _ = c.Wait(); len(written) < 20*(round+1) { // it was killed
			t.Fatalf("round %d: %d seconds were written", round, len(written))
		}
	}
	s := server.open("killed", "edge-1", func(o *Options) { o.Buffer, o.Now = dir, func() time.Time { return storetest.Noon } })
	if err := s.Flush(context.Background()); err != nil {
		t.Fatal(err)
	}
	got := map[int64]bool{}
	for _, text := range s.raw(t, "SELECT t FROM traffic_1s") {
		at, err := strconv.ParseInt(text, 10, 64)
		if n := at - storetest.Noon.Unix() + 3600; err != nil || got[n] {
			t.Errorf("second %d is there twice (%v)", n, err)
		} else {
			got[n] = true
		}
	}
	for _, n := range written {
		if !got[n] {
			t.Errorf("second %d was written, and is not there", n)
		}
	}
	if len(got) > len(written)+4 { // of each round one may be written that it could not say
		t.Errorf("%d seconds are there of %d", len(got), len(written))
	}
	const sums = "SELECT toString(intDiv(t, 60)), ' ', toString(sum(packets)) FROM %s GROUP BY intDiv(t, 60) ORDER BY intDiv(t, 60)"
	if s, m := s.raw(t, fmt.Sprintf(sums, "traffic_1s")), s.raw(t, fmt.Sprintf(sums, "traffic_1m")); !slices.Equal(s, m) {
		t.Errorf("packets of minutes: %v, in seconds %v", m, s)
	}
}
