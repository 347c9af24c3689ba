package history

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

func open(t *testing.T, path string) *History {
	t.Helper()
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	h, err := Open(root)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); root.Close() })
	return h
}

func event(day, n int) Event {
	return Event{Time: time.Date(2026, 1, day, 12, 0, n, 0, time.UTC), Tunnel: fmt.Sprint("t", n), Was: "healthy", State: "down", Why: "3 probes in a row had no answer"}
}

// What is added is there for thirty days, also for the process that comes after one that was killed in the middle of a line.
func TestHistory(t *testing.T) {
	path := t.TempDir()
	h := open(t, path)
	var all []Event
	add := func(h *History, e Event) {
		t.Helper()
		if err := h.Add(e); err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	wants := func(h *History, since time.Time, most int, want []Event) {
		t.Helper()
		if got := h.Last(since, most); !slices.Equal(got, want) {
			t.Errorf("got %v\nwant %v", got, want)
		}
	}
	for day := 1; day <= 20; day++ {
		add(h, event(day, 1))
		add(h, event(day, 2))
	}
	wants(h, time.Time{}, 1000, all)
	wants(h, all[4].Time, 1000, all[4:])
	wants(h, time.Time{}, 3, all[37:])
	file := filepath.Join(path, "health", "2026-01-20.jsonl")
	f, err := os.OpenFile(file, os.O_APPEND|os.O_WRONLY, 0)
	if err == nil {
		_, err = f.WriteString(`{"time":"2026-01-20T12:`)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	h = open(t, path)
	wants(h, time.Time{}, 1000, all)
	add(h, event(20, 3))
	add(h, event(40, 1)) // 9 February: the first ten days are over
	wants(h, time.Time{}, 1000, all[18:])
}

// Without a disk, or with one that is full or broken, the last events are there, and it is said once.
func TestWithoutDisk(t *testing.T) {
	h, err := Open(nil)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 1500 {
		if err := h.Add(event(1, n)); err != nil {
			t.Fatal(err)
		}
	}
	if got := h.Last(time.Time{}, 5000); len(got) != inMemory || got[inMemory-1] != event(1, 1499) {
		t.Errorf("%d events", len(got))
	}
	broken := open(t, t.TempDir())
	if err := os.RemoveAll(filepath.Join(broken.root.Name(), "health")); err != nil {
		t.Fatal(err)
	}
	if err := broken.Add(event(1, 1)); err == nil {
		t.Error("no error")
	}
	if err := broken.Add(event(1, 2)); err != nil {
		t.Errorf("it is said twice: %v", err)
	}
	if got := broken.Last(time.Time{}, 10); len(got) != 2 {
		t.Errorf("%v", got)
	}
	if err := os.Mkdir(filepath.Join(broken.root.Name(), "health"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := broken.Add(event(1, 3)); err != nil {
		t.Error(err)
	}
	if got := broken.Last(time.Time{}, 10); len(got) != 1 || got[0] != event(1, 3) {
		t.Errorf("with the disk again: %v", got)
	}
}

// A tunnel that changes all the time does not fill the disk.
func TestDayIsBounded(t *testing.T) {
	h := open(t, t.TempDir())
	if err := h.Add(event(1, 1)); err != nil {
		t.Fatal(err)
	}
	h.size = maxDay - 10
	if err := h.Add(event(1, 2)); err == nil {
		t.Error("a day's file grows without end")
	}
	if err := h.Add(event(2, 3)); err != nil {
		t.Errorf("the next day: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("{\"time\":\"2026-01-20T12:00:00Z\",\"tunnel\":\"t\"}\n{\"time"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, e := range parse(b) {
			if e.Tunnel == "" {
				t.Error("an event of nobody")
			}
		}
	})
}
