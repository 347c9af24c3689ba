package graph

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Times of a stream, in seconds.
const (
	maxInterval = 60
	heartbeat   = 15 // after so long without an event comes a comment, which keeps proxies from closing
	writeTime   = 10 * time.Second
)

// serveStream repeats a query and sends its result when it has changed, as Server-Sent Events in the distinct-connections mode of
// graphql-sse: `next` with an answer, at last `complete`. The parameter interval is the seconds between two queries, 1 to 60.
// Times of the query that are spans before now, such as "-30m", move along.
func (h *Handler) serveStream(w http.ResponseWriter, r *http.Request) {
	g, ok := h.admit(w, r)
	if !ok {
		return
	}
	p, interval, ok := streamed(w, r)
	if !ok {
		return
	}
	if !h.streams.take(r.Context(), g.hash, 0) {
		w.Header().Set("Retry-After", "10")
		refuse(w, http.StatusServiceUnavailable, "busy", "too many streams are open: close one, or try again later")
		return
	}
	defer h.streams.free(g.hash)
	s := &stream{handler: h, params: p, grant: g, w: w, control: http.NewResponseController(w), r: r}
	s.run(interval)
}

// streamed reads the query from the body, or from the parameters.
func streamed(w http.ResponseWriter, r *http.Request) (p *params, interval int, ok bool) {
	q := r.URL.Query()
	interval = 1
	if s := q.Get("interval"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 || n > maxInterval {
			refuse(w, http.StatusBadRequest, "interval", at("interval", wrong(s, "seconds from 1 to 60")).Error())
			return nil, 0, false
		}
		interval = n
	}
	switch r.Method {
	case http.MethodPost:
		p, ok = posted(w, r)
		return p, interval, ok
	case http.MethodGet:
		p = &params{}
		if v := q.Get("variables"); v != "" {
			if err := parseVariables(v, p); err != nil {
				refuse(w, http.StatusBadRequest, "variables", err.Error())
				return nil, 0, false
			}
		}
		p.Query, p.OperationName = q.Get("query"), q.Get("operationName")
		if err := p.check(); err != nil {
			refuse(w, http.StatusBadRequest, "query", err.Error())
			return nil, 0, false
		}
		return p, interval, true
	}
	w.Header().Set("Allow", "GET, POST")
	refuse(w, http.StatusMethodNotAllowed, "method", r.Method+" is not served here: send the query by GET or POST")
	return nil, 0, false
}

// A stream is one connection.
type stream struct {
	handler *Handler
	params  *params
	grant   grant
	w       http.ResponseWriter
	control *http.ResponseController
	r       *http.Request
	last    [sha256.Size]byte // hash of what was sent
	quiet   int               // seconds since something was sent
	err     error             // of writing: the client has gone
}

// run sends until the client goes away, its token is removed, or the query turns out to be wrong.
func (s *stream) run(interval int) {
	s.w.Header().Set("Content-Type", "text/event-stream")
	s.w.Header().Set("Cache-Control", "no-store")
	s.w.Header().Set("X-Accel-Buffering", "no") // nginx would collect events
	_ = s.control.SetReadDeadline(time.Time{})
	if !s.query() { // a query that fails at once would fail for ever
		s.send("complete", nil)
		return
	}
	tick := time.NewTicker(s.handler.second)
	defer tick.Stop()
	for n := 1; s.err == nil; n++ {
		select {
		case <-s.r.Context().Done():
			return
		case <-s.handler.closed:
			s.send("complete", nil)
			return
		case <-tick.C:
		}
		if !s.admitted() {
			s.send("complete", nil)
			return
		}
		if n%interval == 0 {
			s.query()
		}
		if s.quiet++; s.quiet >= heartbeat {
			s.write([]byte(":\n\n"))
		}
	}
}

// admitted looks at the token again, and at what it allows now.
func (s *stream) admitted() (ok bool) {
	if s.handler.options.Open {
		return true
	}
	s.grant, ok = s.handler.options.Tokens.byHash(s.grant.hash)
	return ok
}

// query sends the answer if it is another than the last. It reports whether there was data. When all places are taken it waits
// for the next time.
func (s *stream) query() bool {
	h := s.handler
	if !h.running.take(s.r.Context(), s.grant.hash, queueTime) {
		return true
	}
	body, _ := h.execute(s.r.Context(), s.params, s.grant, true)
	h.running.free(s.grant.hash)
	if s.r.Context().Err() != nil {
		return true
	}
	if sum := sha256.Sum256(body); sum != s.last {
		s.last = sum
		s.send("next", bytes.TrimSpace(body))
	}
	return !bytes.HasPrefix(body, []byte(`{"data":null`))
}

// send writes an event. Answers are JSON on one line.
func (s *stream) send(event string, data []byte) {
	s.write(fmt.Appendf(nil, "event: %s\ndata: %s\n\n", event, data))
}

func (s *stream) write(b []byte) {
	s.quiet = 0
	_ = s.control.SetWriteDeadline(time.Now().Add(writeTime)) // not every ResponseWriter has one
	if _, s.err = s.w.Write(b); s.err == nil {
		s.err = s.control.Flush()
	}
}
