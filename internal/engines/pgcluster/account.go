package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
)

// ownAccount is made on a machine that has the binaries but no postgres user.
const ownAccount = "ambit-postgres"

// account is the operating-system user that the server runs as.
type account struct {
	name     string
	uid, gid int
	// switched is true when we are root and the server is somebody else.
	switched bool
}

func (a account) credential() *syscall.Credential {
	if !a.switched {
		return nil
	}
	return &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)} //nolint:gosec // ids come from the user database
}

// serverAccount chooses who runs the server: ourselves, unless we are root.
// "nobody" is never used, because sandboxes run as nobody and must not share an
// account with the database.
func serverAccount(ctx context.Context) (account, error) {
	if os.Getuid() != 0 {
		return account{name: strconv.Itoa(os.Getuid()), uid: os.Getuid(), gid: os.Getgid()}, nil
	}
	for _, name := range []string{"postgres", ownAccount} {
		acc, err := lookUpAccount(name)
		if err == nil {
			return acc, nil
		}
		var unknown user.UnknownUserError
		if !errors.As(err, &unknown) {
			return account{}, err
		}
	}
	out, err := exec.CommandContext(ctx, "useradd", "--system", "--no-create-home",
		"--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", ownAccount).CombinedOutput()
	if err != nil {
		return account{}, fmt.Errorf("making the system user %s to run Postgres as: %w: %s", ownAccount, err, out)
	}
	return lookUpAccount(ownAccount)
}

func lookUpAccount(name string) (account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return account{}, err
	}
	uid, err := strconv.Atoi(u.Uid)
	if err != nil {
		return account{}, fmt.Errorf("user %s has the uid %q: %w", name, u.Uid, err)
	}
	gid, err := strconv.Atoi(u.Gid)
	if err != nil {
		return account{}, fmt.Errorf("user %s has the gid %q: %w", name, u.Gid, err)
	}
	return account{name: name, uid: uid, gid: gid, switched: true}, nil
}

// checkReach refuses a folder that the account can't enter, naming the parent
// that shuts it out (/root, usually), since Postgres's own message names only
// the folder.
func (a account) checkReach(dir string) error {
	if !a.switched {
		return nil
	}
	for p := dir; p != "/" && p != "."; p = filepath.Dir(p) {
		st, err := os.Stat(p)
		if err != nil {
			return err
		}
		sys, ok := st.Sys().(*syscall.Stat_t)
		if !ok {
			return nil
		}
		mode := st.Mode().Perm()
		var may bool
		switch {
		case int(sys.Uid) == a.uid:
			may = mode&0o100 != 0
		case int(sys.Gid) == a.gid:
			may = mode&0o010 != 0
		default:
			may = mode&0o001 != 0
		}
		if !may {
			return fmt.Errorf("the user %s, whom Postgres runs as, can't enter %s (mode %04o), so %s can't be its folder: choose a data directory elsewhere (AMBIT_DATA_DIR=/var/lib/ambit), or let it pass (chmod o+x %s)",
				a.name, p, mode, dir, p)
		}
	}
	return nil
}

// CheckReach says whether the account that the server would run as can enter
// dir, which must exist.
func CheckReach(ctx context.Context, dir string) error {
	acc, err := serverAccount(ctx)
	if err != nil {
		return err
	}
	return acc.checkReach(dir)
}
