package nomadagent

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
)

// role is what an agent is.
type role string

const (
	server role = "server"
	client role = "client"
)

const loopback = "127.0.0.1"

// writeConfig writes both agents' configuration.
func (p *Pair) writeConfig() error {
	return errors.Join(p.write(server, p.serverSettings()), p.write(client, p.clientSettings()))
}

func (p *Pair) write(r role, settings map[string]any) error {
	b, err := json.MarshalIndent(settings, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(p.configPath(r), b, 0o600); err != nil {
		return fmt.Errorf("writing the configuration of Nomad's %s: %w", r, err)
	}
	return nil
}

func (p *Pair) commonSettings(r role) map[string]any {
	return map[string]any{
		"datacenter": "ambit",
		"bind_addr":  loopback, "advertise": map[string]string{"http": loopback, "rpc": loopback, "serf": loopback},
		"data_dir": p.dataPath(r), "log_json": true, "log_level": "INFO",
		"disable_update_check": true,
		// An agent's end must not end the tasks: it may be being started again.
		"leave_on_interrupt": false, "leave_on_terminate": false,
		"acl":    map[string]any{"enabled": true},
		"consul": map[string]any{"auto_advertise": false, "server_auto_join": false, "client_auto_join": false},
	}
}

func (p *Pair) serverSettings() map[string]any {
	s := p.commonSettings(server)
	s["name"] = "ambit-server"
	s["ports"] = map[string]int{"http": p.ports.HTTP, "rpc": p.ports.RPC, "serf": p.ports.Serf}
	s["server"] = map[string]any{
		"enabled": true, "bootstrap_expect": 1, "raft_multiplier": 1,
		"default_scheduler_config": []map[string]any{{"memory_oversubscription_enabled": true}},
	}
	return s
}

func (p *Pair) clientSettings() map[string]any {
	s := p.commonSettings(client)
	s["name"] = "ambit"
	// It listens on none but the HTTP port, but wants them all to be free.
	s["ports"] = map[string]int{"http": p.ports.ClientHTTP, "rpc": p.ports.RPC, "serf": p.ports.Serf}
	s["client"] = map[string]any{
		"enabled": true, "servers": []string{net.JoinHostPort(loopback, strconv.Itoa(p.ports.RPC))},
		"network_interface": "lo",
		"gc_max_allocs":     2000, // each sandbox is one; the default of 50 is for long-lived services
		"options": map[string]string{
			"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean",
			"driver.allowlist":     "raw_exec",
		},
	}
	s["plugin"] = []map[string]any{{"raw_exec": []map[string]any{{"config": []map[string]any{{"enabled": true}}}}}}
	return s
}
