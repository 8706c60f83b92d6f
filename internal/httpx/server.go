package httpx

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// ServerConfig says where and how to listen.
type ServerConfig struct {
	// Name stands in log lines: "api", "console".
	Name string
	// Addr is host:port. Port 0 takes a free one; Server.Addr tells which.
	Addr    string
	Handler http.Handler
	Log     *slog.Logger
	// Drained is closed by Stop before anything else. Event streams and long polls watch it, or they would hold up the drain for as
	// long as their clients stay. When nil, the server makes one of its own.
	Drained *Drain
}

// Drain tells long answers that the process is about to end.
type Drain struct {
	once sync.Once
	ch   chan struct{}
}

// NewDrain returns a Drain that has not begun.
func NewDrain() *Drain { return &Drain{ch: make(chan struct{})} }

// Begin closes Done. It may be called more than once.
func (d *Drain) Begin() { d.once.Do(func() { close(d.ch) }) }

// Done is closed when the drain begins.
func (d *Drain) Done() <-chan struct{} { return d.ch }

// Server is one listener with its handler. Start it once, Stop it once.
type Server struct {
	cfg     ServerConfig
	http    *http.Server
	ln      net.Listener
	started chan struct{}
	ended   chan error
}

// NewServer prepares a server; nothing listens yet.
func NewServer(cfg ServerConfig) *Server {
	if cfg.Drained == nil {
		cfg.Drained = NewDrain()
	}
	return &Server{
		cfg: cfg,
		http: &http.Server{
			Handler:           cfg.Handler,
			ReadHeaderTimeout: 10 * time.Second,
			IdleTimeout:       2 * time.Minute,
			MaxHeaderBytes:    64 << 10,
			ErrorLog:          slog.NewLogLogger(cfg.Log.Handler(), slog.LevelWarn),
		},
		started: make(chan struct{}), ended: make(chan error, 1),
	}
}

// Start binds the address and serves in the background. It returns once connections are accepted, or with the reason why not.
func (s *Server) Start(ctx context.Context) error {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", s.cfg.Addr)
	if err != nil {
		return fmt.Errorf("listen for the %s on %s: %w", s.cfg.Name, s.cfg.Addr, err)
	}
	s.ln = ln
	go func() {
		err := s.http.Serve(ln)
		if errors.Is(err, http.ErrServerClosed) {
			err = nil
		}
		s.ended <- err
	}()
	close(s.started)
	s.cfg.Log.InfoContext(ctx, "listening", "surface", s.cfg.Name, "addr", ln.Addr().String())
	return nil
}

// Started is closed once connections are accepted.
func (s *Server) Started() <-chan struct{} { return s.started }

// Ended yields the error that ended serving, nil after Stop.
func (s *Server) Ended() <-chan error { return s.ended }

// Addr is the address that was bound. It panics before Start.
func (s *Server) Addr() string { return s.ln.Addr().String() }

// Stop tells long answers to end, takes no new connection, and waits for answers under way until ctx ends; then it cuts what is left
// and says so in its error.
func (s *Server) Stop(ctx context.Context) error {
	s.cfg.Drained.Begin()
	if err := s.http.Shutdown(ctx); err != nil {
		closeErr := s.http.Close()
		return errors.Join(fmt.Errorf("drain the %s: answers under way were cut: %w", s.cfg.Name, err), closeErr)
	}
	return nil
}
