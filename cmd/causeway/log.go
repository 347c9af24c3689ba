package main

import (
	"context"
	"io"
	"log/slog"
	"sync"
	"time"
)

// Limits of the log: what traffic or a broken neighbour can provoke must not fill the disk.
const (
	logBurst  = 20 // lines of one message
	logWindow = 10 * time.Second
)

func newLogger(w io.Writer) *slog.Logger {
	return slog.New(&limited{
		Handler: slog.NewTextHandler(w, nil),
		windows: &windows{now: time.Now, byMessage: map[string]*window{}},
	})
}

// limited passes on at most logBurst records of the same message in each window; the next one that passes says how
// many did not.
type limited struct {
	slog.Handler
	windows *windows
}

type windows struct {
	now       func() time.Time
	mu        sync.Mutex
	byMessage map[string]*window // messages are constants of the program, so there are few
}

type window struct {
	begin      time.Time
	lines      int
	suppressed int
}

func (l *limited) Handle(ctx context.Context, r slog.Record) error {
	suppressed, pass := l.windows.admit(r.Message)
	if !pass {
		return nil
	}
	if suppressed > 0 {
		r = r.Clone()
		r.AddAttrs(slog.Int("suppressed", suppressed))
	}
	return l.Handler.Handle(ctx, r)
}

func (w *windows) admit(message string) (suppressed int, pass bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	m := w.byMessage[message]
	if m == nil {
		m = &window{}
		w.byMessage[message] = m
	}
	if now := w.now(); now.Sub(m.begin) >= logWindow {
		suppressed = m.suppressed
		*m = window{begin: now}
	}
	if m.lines == logBurst {
		m.suppressed++
		return 0, false
	}
	m.lines++
	return suppressed, true
}

func (l *limited) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &limited{l.Handler.WithAttrs(attrs), l.windows}
}

func (l *limited) WithGroup(name string) slog.Handler {
	return &limited{l.Handler.WithGroup(name), l.windows}
}
