package agent

import (
	"fmt"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"ambit.dev/ambit/sandbox/guest"
)

// maxInlineScript is the longest script that goes on a command line; the kernel
// takes 128 KiB an argument.
const maxInlineScript = 96 << 10

// defaultPath is where programs are looked for.
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

var effectKeyPattern = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,128}$`)

// plan is a command made ready to start.
type plan struct {
	path   string
	argv   []string
	cwd    string
	env    []string
	stdin  *os.File
	script string // file to remove afterwards
}

func (p *plan) closeStdin() { _ = p.stdin.Close() }

func (p *plan) cleanup() {
	if p.script != "" {
		_ = os.Remove(p.script)
	}
}

// notRunnable is a command that no process was made for; it has an exit code as
// a shell would give it.
type notRunnable struct {
	code int
	text string
}

func (e *notRunnable) Error() string { return "ambit: " + e.text }

// checkExec refuses malformed requests and fills in what they left open.
func checkExec(req *guest.ExecRequest) error {
	switch {
	case !effectKeyPattern.MatchString(req.EffectKey) || strings.Trim(req.EffectKey, ".") == "":
		return guest.Errorf(guest.CodeInvalid, "effect_key must be 1 to 128 characters of letters, digits, _ . : -")
	case len(req.Argv) == 0 && req.Script == "":
		return guest.Errorf(guest.CodeInvalid, "either argv or script must be given")
	case len(req.Argv) > 0 && req.Argv[0] == "":
		return guest.Errorf(guest.CodeInvalid, "argv[0] is empty")
	case len(req.Argv) > 4096:
		return guest.Errorf(guest.CodeTooMany, "argv has at most 4096 arguments")
	case len(req.Stdin) > guest.MaxStdin:
		return guest.Errorf(guest.CodeTooLarge, "stdin has at most %d bytes", guest.MaxStdin)
	case strings.ContainsRune(req.Script, 0) || strings.ContainsRune(req.Cwd, 0):
		return guest.Errorf(guest.CodeInvalid, "script and cwd must not contain a zero byte")
	case req.TimeLimit < 0 || req.TimeLimit > guest.MaxTimeLimit:
		return guest.Errorf(guest.CodeInvalid, "time limit must be between 0 and %s", guest.MaxTimeLimit)
	case req.OutputLimit < 0 || req.KeepLimit < 0 || req.KeepLimit > guest.MaxKeepLimit:
		return guest.Errorf(guest.CodeInvalid, "output limits are out of range")
	}
	for _, a := range req.Argv {
		if strings.ContainsRune(a, 0) {
			return guest.Errorf(guest.CodeInvalid, "an argument contains a zero byte")
		}
		if len(a) > 128<<10-1 {
			return guest.Errorf(guest.CodeTooLarge, "an argument has at most 128 KiB; send a script or stdin")
		}
	}
	if err := checkEnv(req.Env); err != nil {
		return err
	}
	if req.TimeLimit == 0 {
		req.TimeLimit = guest.DefaultTimeLimit
	}
	if req.OutputLimit == 0 {
		req.OutputLimit = guest.DefaultOutputLimit
	}
	if req.KeepLimit == 0 {
		req.KeepLimit = guest.DefaultKeepLimit
	}
	return nil
}

// plan turns a request into what execve takes.
func (s *Server) plan(name string, req guest.ExecRequest) (*plan, error) {
	p := &plan{cwd: s.cfg.WorkDir, argv: req.Argv}
	if req.Cwd != "" {
		p.cwd = req.Cwd
		if !path.IsAbs(p.cwd) {
			p.cwd = filepath.Join(s.cfg.WorkDir, p.cwd)
		}
	}
	if fi, err := os.Stat(p.cwd); err != nil || !fi.IsDir() {
		return nil, &notRunnable{126, fmt.Sprintf("%s: no such directory", p.cwd)}
	}
	env := map[string]string{"PATH": defaultPath}
	maps.Copy(env, s.cfg.Env)
	maps.Copy(env, s.identity.environment())
	maps.Copy(env, req.Env)
	env["PWD"] = p.cwd
	for _, k := range slices.Sorted(maps.Keys(env)) {
		p.env = append(p.env, k+"="+env[k])
	}

	switch {
	case req.Script == "":
	case len(req.Argv) == 0 && len(req.Script) <= maxInlineScript:
		p.argv = []string{"bash", "-c", req.Script}
	default:
		interpreter := req.Argv
		if len(interpreter) == 0 {
			interpreter = []string{"bash"}
		}
		p.script = filepath.Join(s.cfg.ScriptDir, name)
		if err := os.WriteFile(p.script, []byte(req.Script), 0o644); err != nil { //nolint:gosec // the command must read it
			return nil, fmt.Errorf("write the script: %w", err)
		}
		p.argv = append(slices.Clone(interpreter), p.script)
	}
	exe, err := lookPath(p.argv[0], env["PATH"], p.cwd)
	if err != nil {
		p.cleanup()
		return nil, err
	}
	p.path = exe
	if p.stdin, err = s.stdin(name, req.Stdin); err != nil {
		p.cleanup()
		return nil, err
	}
	return p, nil
}

// stdin is a file that is already unlinked: no goroutine has to feed a pipe, and
// a command that never reads costs nothing.
func (s *Server) stdin(name string, content []byte) (*os.File, error) {
	if len(content) == 0 {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return nil, fmt.Errorf("open the null device: %w", err)
		}
		return f, nil
	}
	file := filepath.Join(s.cfg.StateDir, name+".in")
	if err := os.WriteFile(file, content, 0o600); err != nil {
		_ = os.Remove(file)
		return nil, fmt.Errorf("keep standard input: %w", err)
	}
	f, err := os.Open(file)
	_ = os.Remove(file)
	if err != nil {
		return nil, fmt.Errorf("open standard input: %w", err)
	}
	return f, nil
}

// lookPath finds a program as execvp would.
func lookPath(name, searchPath, cwd string) (string, error) {
	if strings.Contains(name, "/") {
		if !path.IsAbs(name) {
			name = filepath.Join(cwd, name)
		}
		return name, nil // the kernel says what is wrong with it
	}
	for _, dir := range filepath.SplitList(searchPath) {
		if !path.IsAbs(dir) {
			dir = filepath.Join(cwd, dir)
		}
		file := filepath.Join(dir, name)
		if fi, err := os.Stat(file); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return file, nil
		}
	}
	return "", &notRunnable{127, name + ": command not found"}
}
