package cluster

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
)

// asking is a bed of two nodes, the second of which answers.
func asking(t *testing.T, answer func(ctx context.Context, question []byte) []byte) (one, other *node) {
	t.Helper()
	b := newBed(t, "hub", "edge-1")
	one, other = b.start("hub").joined(), b.start("edge-1").joined()
	one.eventually("the other is heard", func() bool { return len(one.others()) == 1 })
	if answer != nil {
		other.OnInquiry(answer)
	}
	return one, other
}

// soon is a context that ends long after what is waited for.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}

// Another node answers what it is asked, whether it fits into one piece or not, and keeps nothing of it.
func TestInquire(t *testing.T) {
	t.Parallel()
	one, other := asking(t, func(_ context.Context, question []byte) []byte {
		var n int
		_, _ = fmt.Sscan(string(question), &n)
		return pattern(n)
	})
	var all sync.WaitGroup
	for _, n := range []int{0, 1, pieceLen - 1, pieceLen, pieceLen + 1, 3*pieceLen + 7, 20*pieceLen + 1} {
		all.Go(func() {
			if got, err := one.Inquire(soon(t), "edge-1", fmt.Append(nil, n)); err != nil || !bytes.Equal(got, pattern(n)) {
				t.Errorf("%d bytes: %v, %d bytes", n, err, len(got))
			}
		})
	}
	all.Wait()
	other.inquiries.mu.Lock()
	defer other.inquiries.mu.Unlock()
	if i := &other.inquiries; len(i.ready) > 0 || i.bytes != 0 || i.running != 0 {
		t.Errorf("left: %d answers, %d bytes, %d running", len(i.ready), i.bytes, i.running)
	}
}

// pattern is n bytes of which no two pieces are the same.
func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i>>16) ^ byte(i>>8) ^ byte(i)
	}
	return b
}

// Who cannot answer says why, at once.
func TestInquireFails(t *testing.T) {
	t.Parallel()
	hold := make(chan struct{})
	one, other := asking(t, nil)
	fails := func(what, node, want string) {
		t.Helper()
		if got, err := one.Inquire(soon(t), node, []byte("?")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, %d bytes, want %q", what, err, len(got), want)
		}
	}
	fails("nobody answers", "edge-1", "no section analytics")
	fails("no such node", "edge-9", "not connected")
	other.OnInquiry(func(context.Context, []byte) []byte { return make([]byte, maxAnswer+1) })
	fails("a long answer", "edge-1", "more than 32 MiB")
	if _, err := one.Inquire(soon(t), "edge-1", make([]byte, maxQuestion+1)); err == nil || !strings.Contains(err.Error(), "131072 are possible") {
		t.Error("a long question:", err)
	}

	other.OnInquiry(func(context.Context, []byte) []byte { <-hold; return nil })
	var all sync.WaitGroup
	for range maxInquiries {
		all.Go(func() {
			if _, err := one.Inquire(soon(t), "edge-1", nil); err != nil {
				t.Error("one of those at once:", err)
			}
		})
	}
	one.eventually("so many are answered", func() bool {
		other.inquiries.mu.Lock()
		defer other.inquiries.mu.Unlock()
		return other.inquiries.running == maxInquiries
	})
	fails("one too many", "edge-1", "8 questions already")
	close(hold)
	all.Wait()

	other.OnInquiry(func(ctx context.Context, _ []byte) []byte { <-ctx.Done(); return nil })
	short, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if _, err := one.Inquire(short, "edge-1", nil); err == nil {
		t.Error("too slow:", err)
	}
	other.eventually("the one who answers has given up too", func() bool {
		other.inquiries.mu.Lock()
		defer other.inquiries.mu.Unlock()
		return other.inquiries.running == 0
	})
}

// FuzzPiece: no piece is longer than what it says that it is of, or than a piece may be.
func FuzzPiece(f *testing.F) {
	f.Add([]byte{pieceOK, 0, 0, 0, 3, 'a', 'b', 'c'})
	f.Add([]byte{pieceFails, 0, 0, 0, 0, 'n', 'o'})
	f.Add([]byte{pieceOK, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		piece, total, err := parsePiece(b)
		if err == nil && (total > maxAnswer || len(piece) > total || len(piece) > pieceLen) {
			t.Errorf("%d bytes of %d", len(piece), total)
		}
	})
}

// inquiryAt is a sealed question with number 0, asked at a time.
func inquiryAt(t *testing.T, n *node, at time.Time, question string) []byte {
	t.Helper()
	b := binary.BigEndian.AppendUint32(make([]byte, 20), 4000)
	b = append(binary.BigEndian.AppendUint64(b, uint64(at.UnixMilli())), question...)
	sealed, err := n.keys.Seal(inquiryPlace("edge-1"), b)
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// A question is answered once, however often it comes, and not when it is old; a fault in answering ends nothing.
func TestInquiryIsNotRepeated(t *testing.T) {
	t.Parallel()
	var asked atomic.Int64
	one, _ := asking(t, func(_ context.Context, question []byte) []byte {
		asked.Add(1)
		if string(question) == "fault" {
			panic("a fault of this test")
		}
		return question
	})
	say := func(sealed []byte) string {
		t.Helper()
		m, err := one.engine.Conn.RequestWithContext(soon(t), subjectInquiry+"edge-1", sealed)
		if err != nil {
			t.Fatal(err)
		}
		text, err := one.keys.Open(piecePlace("edge-1", inquiryNumber{}, 0), m.Data)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[pieceHead:])
	}
	for _, age := range []time.Duration{2 * inquiryAge, -2 * inquiryAge} {
		if got := say(inquiryAt(t, one, one.clock.common().Add(-age), "old")); !strings.Contains(got, "clock") {
			t.Errorf("asked %v ago: %q", age, got)
		}
	}
	sealed := inquiryAt(t, one, one.clock.common(), "once")
	if got := say(sealed); got != "once" {
		t.Errorf("the first time: %q", got)
	}
	for range 20 {
		if got := say(sealed); got != "it was asked that before" {
			t.Fatalf("again: %q", got)
		}
	}
	if _, err := one.Inquire(soon(t), "edge-1", []byte("fault")); err == nil || !strings.Contains(err.Error(), "its log says why") {
		t.Error("a fault:", err)
	}
	if got, err := one.Inquire(soon(t), "edge-1", []byte("afterwards")); err != nil || string(got) != "afterwards" {
		t.Errorf("afterwards: %q, %v", got, err)
	}
	if n := asked.Load(); n != 3 {
		t.Errorf("answered %d times, want 3", n)
	}
}

// An answer that nobody fetches is forgotten, and more than there is room for is not kept.
func TestAnswersAreBounded(t *testing.T) {
	var i inquiries
	now := time.Now()
	for n := range byte(2) {
		i.running++
		if err := i.end(inquiryNumber{n}, make([]byte, maxAnswer), now); err != nil {
			t.Fatal(err)
		}
	}
	i.running++
	if err := i.end(inquiryNumber{2}, []byte{1}, now); err == nil || i.bytes != maxAnswers || i.running != 0 {
		t.Fatal("no room:", err, i.bytes, i.running)
	}
	i.expire(inquiryNumber{0})
	if len(i.ready) != 2 {
		t.Fatal("forgotten though it is new")
	}
	i.ready[inquiryNumber{0}].last = now.Add(-answerKept)
	i.expire(inquiryNumber{0})
	if len(i.ready) != 1 || i.bytes != maxAnswer {
		t.Fatal("not forgotten")
	}
	if _, total := i.piece(inquiryNumber{0}, 0, now); total >= 0 {
		t.Fatal("fetched though it is forgotten")
	}
	if _, total := i.piece(inquiryNumber{1}, maxAnswer+1, now); total >= 0 {
		t.Fatal("fetched beyond its end")
	}
	for n := range maxRemembered + 10 {
		_, err := i.begin(inquiryNumber{byte(n), byte(n >> 8), 7}, now)
		if full := strings.Contains(fmt.Sprint(err), "within a minute"); full != (n >= maxRemembered) {
			t.Fatal(n, err)
		}
	}
	if _, err := i.begin(inquiryNumber{9}, now.Add(2*inquiryAge+1)); strings.Contains(fmt.Sprint(err), "within a minute") || len(i.seen) != 1 {
		t.Fatal("not forgotten:", err, len(i.seen))
	}
}

// What was answered to another question, or by who is not admitted, is not taken.
func TestAnswerOfAnother(t *testing.T) {
	t.Parallel()
	one, other := asking(t, func(_ context.Context, question []byte) []byte { return question })
	old, err := one.engine.Conn.RequestWithContext(soon(t), subjectInquiry+"edge-1", inquiryAt(t, one, one.clock.common(), "first"))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := one.keys.Open(piecePlace("edge-1", inquiryNumber{}, 0), old.Data); err != nil || string(text[pieceHead:]) != "first" {
		t.Fatalf("the first answer: %q, %v", text, err)
	}
	other.stop()
	for what, b := range map[string][]byte{"an old answer": old.Data, "nonsense": []byte("nonsense"), "nothing": nil} {
		liar, err := one.engine.Conn.Subscribe(subjectInquiry+"edge-1", func(m *nats.Msg) { _ = m.Respond(b) })
		if err != nil {
			t.Fatal(err)
		}
		if got, err := one.Inquire(soon(t), "edge-1", []byte("second")); err == nil {
			t.Errorf("%s: took %q", what, got)
		}
		_ = liar.Unsubscribe()
	}
}
