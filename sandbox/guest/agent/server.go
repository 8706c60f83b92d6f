package agent

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/hashicorp/yamux"

	"ambit.dev/ambit/sandbox/guest"
)

// Config says how the agent stands in its machine.
type Config struct {
	// WorkDir is the working directory; all file operations are confined to it.
	WorkDir string
	// StateDir is for kept output; only root may enter it.
	StateDir string
	// ScriptDir is for scripts that are too long for a command line; commands
	// must be able to read in it.
	ScriptDir string
	// UID and GID are who commands run as. Equal to the agent's own: no change.
	UID, GID int
	// CgroupDir is the cgroup (v2) under which each command gets its own; empty
	// where there is none, and then a command's tree is its session only.
	CgroupDir string
	// MaxProcesses bounds the processes of one command.
	MaxProcesses int
	// Env is the base environment of commands.
	Env map[string]string
	// Version is of the guest binary.
	Version string
	// Init: this process is PID 1 and must reap every orphan.
	Init bool

	// SetClock, AddEntropy, SetHostname and ResizeWork act on the machine.
	SetClock    func(time.Time) error
	AddEntropy  func([]byte) error
	SetHostname func(string) error
	ResizeWork  func(mib int) error
	// PowerOff ends the machine; it is called once, after all commands ended.
	PowerOff func()

	Log *slog.Logger
}

// Server is the agent. Make it with New.
type Server struct {
	cfg   Config
	log   *slog.Logger
	root  *os.Root
	spawn *spawner
	start time.Time

	identity identity
	effects  effects
	streams  sync.WaitGroup

	// archive is held while the working directory is saved or replaced.
	archive sync.Mutex
	// starting is held for reading while a process is started, and for writing while commands are frozen. A child that is born into a
	// frozen group stops before it runs its program, and the thread that started it waits for that in the kernel: on one processor the
	// agent would never run again, and so never thaw the group.
	starting sync.RWMutex
}

// New prepares the agent. Close gives its handles back.
func New(cfg Config) (*Server, error) {
	root, err := os.OpenRoot(cfg.WorkDir)
	if err != nil {
		return nil, fmt.Errorf("open the working directory: %w", err)
	}
	s := &Server{cfg: cfg, log: cfg.Log, root: root, start: time.Now()}
	s.effects.byKey = map[string]*effect{}
	if s.spawn, err = newSpawner(cfg.Init); err != nil {
		_ = root.Close()
		return nil, err
	}
	if err := s.prepareCgroup(); err != nil {
		s.spawn.close()
		_ = root.Close()
		return nil, err
	}
	return s, nil
}

// Close ends all commands and gives back what New took. Connections must have
// ended before.
func (s *Server) Close() error {
	s.killAll()
	s.streams.Wait()
	s.spawn.close()
	return s.root.Close()
}

// Serve answers one connection until it ends. conn has completed the handshake.
// Commands outlive the connection; so may, for a moment, the handling of its
// last requests.
func (s *Server) Serve(conn io.ReadWriteCloser) error {
	mux, err := yamux.Server(conn, guest.MuxConfig())
	if err != nil {
		return fmt.Errorf("start the multiplexer: %w", err)
	}
	defer mux.Close() //nolint:errcheck // the session is over either way
	for {
		stream, err := mux.AcceptStream()
		if err != nil {
			_ = mux.Close() // so that the streams still open end
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		s.streams.Go(func() { s.serveStream(stream) })
	}
}

// exchange is one stream: a request and its answer.
type exchange struct {
	ctx context.Context //nolint:containedctx // ends when the client goes away
	w   io.Writer
	fr  *guest.FrameReader
	// after, when an operation sets it, runs once its answer has been sent.
	after func()
}

// handler runs an operation. What it returns becomes the result frame; an error
// becomes the error frame.
type handler func(s *Server, x *exchange, body json.RawMessage) (any, error)

// operation is how one operation is served.
type operation struct {
	run handler
	// before: allowed before Configure.
	before bool
	// upload: the client sends content after its request.
	upload bool
}

// handlers is every operation.
var handlers = map[guest.Op]operation{
	guest.OpInfo:       {run: decoded((*Server).info), before: true},
	guest.OpConfigure:  {run: decoded((*Server).configure), before: true},
	guest.OpShutdown:   {run: decoded((*Server).shutdown), before: true},
	guest.OpMetrics:    {run: decoded((*Server).metrics), before: true},
	guest.OpWarm:       {run: decoded((*Server).warm), before: true},
	guest.OpClock:      {run: decoded((*Server).setClock)},
	guest.OpExec:       {run: decoded((*Server).exec)},
	guest.OpAttach:     {run: decoded((*Server).attach)},
	guest.OpSignal:     {run: decoded((*Server).signal)},
	guest.OpReadOutput: {run: decoded((*Server).readOutput)},
	guest.OpReadFile:   {run: decoded((*Server).readFile)},
	guest.OpWriteFile:  {run: decoded((*Server).writeFile), upload: true},
	guest.OpList:       {run: decoded((*Server).list)},
	guest.OpStat:       {run: decoded((*Server).stat)},
	guest.OpRemove:     {run: decoded((*Server).remove)},
	guest.OpSave:       {run: decoded((*Server).save)},
	guest.OpRestore:    {run: decoded((*Server).restore), upload: true},
}

// decoded gives a handler its typed body.
func decoded[T any](fn func(*Server, *exchange, T) (any, error)) handler {
	return func(s *Server, x *exchange, body json.RawMessage) (any, error) {
		var in T
		if len(body) > 0 {
			if err := json.Unmarshal(body, &in); err != nil {
				return nil, guest.Errorf(guest.CodeInvalid, "the request's body does not fit the operation: %v", err)
			}
		}
		return fn(s, x, in)
	}
}

func (s *Server) serveStream(stream *yamux.Stream) {
	defer stream.Close() //nolint:errcheck // the client sees the end
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	x := &exchange{ctx: ctx, w: stream, fr: guest.NewFrameReader(bufio.NewReaderSize(stream, 33<<10))}
	req, err := guest.DecodeRequest(x.fr)
	if err != nil {
		if !errors.Is(err, io.EOF) {
			_ = guest.WriteJSON(stream, guest.FrameError, guest.Errorf(guest.CodeInvalid, "%v", err))
		}
		return
	}
	if !handlers[req.Op].upload {
		go x.watch(stream, cancel)
	}
	out, err := s.dispatch(x, req)
	if err != nil {
		_ = guest.WriteJSON(stream, guest.FrameError, s.asError(req.Op, err))
		return
	}
	_ = guest.WriteJSON(stream, guest.FrameResult, out)
	if x.after != nil {
		x.after()
	}
}

// dispatch runs a request. A panic in an operation is a bug of ours and must
// not take PID 1, and with it the machine, down.
func (s *Server) dispatch(x *exchange, req guest.Request) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.log.Error("operation panicked", "op", req.Op, "panic", fmt.Sprint(p))
			out, err = nil, guest.Errorf(guest.CodeInternal, "the guest failed in %s", req.Op)
		}
	}()
	h, ok := handlers[req.Op]
	if !ok {
		return nil, guest.Errorf(guest.CodeInvalid, "no such operation: %.40q", req.Op)
	}
	if !h.before && !s.identity.configured() {
		return nil, guest.Errorf(guest.CodeUnconfigured, "the guest has not been configured")
	}
	return h.run(s, x, req.Body)
}

// watch ends an operation whose client closes its end: a write that waits for
// somebody to read would wait for ever, with commands frozen, say.
func (x *exchange) watch(stream io.Closer, cancel func()) {
	for {
		if _, _, err := x.fr.Next(); err != nil {
			cancel()
			_ = stream.Close()
			return
		}
	}
}
