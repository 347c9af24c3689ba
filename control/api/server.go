package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"causeway/config"
)

// A Node is what the server shows.
type Node interface {
	Tunnels() []Tunnel
	Routes() iter.Seq[Route]
	Neighbours() []Neighbour
	Workers() Workers
	Drops() []Drop
	Ports() []Port
	SAs() []SA
	IKE() []IKE
	Health() []Health
	History() []HealthEvent
	Nodes() []ClusterNode
	Cluster() Cluster
	Status() Status
	Fleet(text bool) Fleet
	Apply(ctx context.Context, f *config.Fleet, dry bool) (Applied, error)
	Reload() (Reload, error)
	Drain(ctx context.Context, limit time.Duration) (Drained, error)
	Rebalance() Rebalanced
	CommandIKE(ctx context.Context, command, tunnel string) error
	ExportKeys(tunnel string, span time.Duration) (KeyFile, error)
	// Capture gives events to emit, and an empty one where what was given must not wait any longer, until ctx is done or emit fails.
	Capture(ctx context.Context, q CaptureRequest, emit func(CaptureEvent) error) error
}

// The commands of CommandIKE.
const (
	IKEInitiate  = "initiate"
	IKERekey     = "rekey"     // the pairs of ESP associations
	IKERekeySelf = "rekey-ike" // the IKE SA
	IKETerminate = "terminate"
)

// NewHandler answers for n. An answer is made when it is asked for, by the asking connection's goroutine.
func NewHandler(n Node) http.Handler {
	mux := http.NewServeMux()
	show(mux, "/v1/tunnels", n.Tunnels)
	mux.HandleFunc("GET /v1/routes", func(w http.ResponseWriter, _ *http.Request) { stream(w, n.Routes()) })
	show(mux, "/v1/neighbours", n.Neighbours)
	show(mux, "/v1/workers", n.Workers)
	show(mux, "/v1/drops", n.Drops)
	show(mux, "/v1/ports", n.Ports)
	show(mux, "/v1/sas", n.SAs)
	show(mux, "/v1/ike", n.IKE)
	show(mux, "/v1/health", n.Health)
	show(mux, "/v1/history", n.History)
	show(mux, "/v1/nodes", n.Nodes)
	show(mux, "/v1/cluster", n.Cluster)
	mux.HandleFunc("GET /v1/fleet", func(w http.ResponseWriter, r *http.Request) {
		answer(w, http.StatusOK, n.Fleet(r.FormValue("brief") == ""))
	})
	show(mux, "/v1/status", n.Status)
	mux.HandleFunc("POST /v1/ike/export-keys", func(w http.ResponseWriter, r *http.Request) {
		span, err := time.ParseDuration(r.FormValue("for"))
		var f KeyFile
		if err == nil {
			f, err = n.ExportKeys(r.FormValue("tunnel"), span)
		}
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
			return
		}
		answer(w, http.StatusOK, f)
	})
	for _, command := range []string{IKEInitiate, IKERekey, IKERekeySelf, IKETerminate} {
		mux.HandleFunc("POST /v1/ike/"+command, func(w http.ResponseWriter, r *http.Request) {
			if err := n.CommandIKE(r.Context(), command, r.FormValue("tunnel")); err != nil {
				answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
				return
			}
			answer(w, http.StatusOK, struct{}{})
		})
	}
	mux.HandleFunc("POST /v1/drain", func(w http.ResponseWriter, r *http.Request) {
		limit, err := time.ParseDuration(r.FormValue("limit"))
		var d Drained
		if err == nil {
			d, err = n.Drain(context.WithoutCancel(r.Context()), limit) // it goes on if whoever asked goes away
		}
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
			return
		}
		answer(w, http.StatusOK, d)
	})
	mux.HandleFunc("POST /v1/rebalance", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, n.Rebalance()) })
	mux.HandleFunc("POST /v1/apply", func(w http.ResponseWriter, r *http.Request) {
		f := new(config.Fleet)
		err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxApplied)).Decode(f)
		var a Applied
		if err == nil {
			a, err = n.Apply(r.Context(), f, r.FormValue("dry") != "")
		}
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
			return
		}
		answer(w, http.StatusOK, a)
	})
	mux.HandleFunc("POST /v1/capture", capture(n))
	mux.HandleFunc("POST /v1/reload", func(w http.ResponseWriter, _ *http.Request) {
		r, err := n.Reload()
		if err != nil {
			answer(w, http.StatusUnprocessableEntity, problem{err.Error()})
			return
		}
		answer(w, http.StatusOK, r)
	})
	return mux
}

// maxApplied bounds a configuration with its keys, in base64.
const maxApplied = 128 << 20

// problem is the answer to a request that failed.
type problem struct {
	Error string `json:"error"`
}

func show[T any](mux *http.ServeMux, path string, get func() T) {
	mux.HandleFunc("GET "+path, func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, get()) })
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // fails only if the client has gone
}

// stream answers with a list that may be too long to be made in memory first.
func stream[T any](w http.ResponseWriter, list iter.Seq[T]) {
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriter(w)
	enc, separator := json.NewEncoder(out), byte('[')
	for v := range list {
		out.WriteByte(separator)
		separator = ','
		if enc.Encode(v) != nil {
			return // the client has gone
		}
	}
	if separator == '[' {
		out.WriteByte('[')
	}
	out.WriteString("]\n")
	_ = out.Flush()
}

// ErrInUse says that another daemon answers on the socket.
var ErrInUse = errors.New("another daemon answers there")

// Listen makes the socket at path, for the process's user alone. A socket that a dead daemon left behind is removed;
// if a living one answers, the error matches ErrInUse.
func Listen(path string) (net.Listener, error) {
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	// The mask rather than chmod afterwards: there is no moment at which others may connect.
	old := syscall.Umask(0o177)
	l, err := net.Listen("unix", path)
	syscall.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("control socket %s cannot be made: %w; `control: {socket: ...}` names another path", path, err)
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode().Type() != os.ModeSocket {
		return fmt.Errorf("there is a file of that name that is not a socket; remove it, or name another path")
	}
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		c.Close()
		return ErrInUse
	}
	if !errors.Is(err, unix.ECONNREFUSED) {
		return err
	}
	return os.Remove(path)
}

// Serve answers on l until ctx is done; requests that are being answered then get a short time to finish.
func Serve(ctx context.Context, l net.Listener, n Node) error {
	srv := &http.Server{Handler: NewHandler(n), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			srv.Close()
		}
	})
	defer stop()
	if err := srv.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("control socket: %w", err)
	}
	return nil
}
