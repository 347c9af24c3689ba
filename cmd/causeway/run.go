package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"causeway/analytics"
	"causeway/config"
	"causeway/control/node"
)

func runCommand() *cobra.Command {
	var file string
	var debugFrames bool
	cmd := command("run", "forward packets until SIGTERM or SIGINT; SIGHUP reloads", noArgs, func(*cobra.Command, []string) error {
		return run(file, debugFrames)
	})
	cmd.Flags().BoolVar(&debugFrames, "debug-frames", false, "watch the owner of every frame (about 200 ns a packet)")
	return configFlag(cmd, &file, defaultConfig)
}

func run(file string, debugFrames bool) error {
	log := newLogger(os.Stderr)
	slog.SetDefault(log)
	c, err := config.Load(file)
	if err != nil {
		return err
	}
	// From here on the first signal drains and the second one ends the process at once.
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer stop()
	context.AfterFunc(ctx, stop)

	var service *analytics.Service
	n, err := node.Open(file, c, node.Options{Log: log, Version: version(), DebugFrames: debugFrames, Reloaded: func() error { return service.Reload() }})
	if err != nil {
		return err
	}
	if service, err = openAnalytics(c, n, log); err != nil {
		return errors.Join(err, n.Close())
	}
	counting := runAnalytics(service, n, log)
	tuneRuntime(len(n.Workers().Workers))
	reloads := make(chan os.Signal, 1)
	signal.Notify(reloads, unix.SIGHUP)
	defer signal.Stop(reloads)
	go func() {
		for range reloads {
			_, _ = n.Reload() // it logs what became of it
		}
	}()
	err = n.Run(ctx, func() {
		log.Info("forwarding", "node", c.Node.Name, "tunnels", len(n.Config().Tunnels))
		notify("READY=1")
	})
	notify("STOPPING=1")
	if err = errors.Join(err, counting(), n.Close()); err != nil {
		return err
	}
	log.Info("stopped")
	return nil
}

// tuneRuntime keeps the garbage collector away from the workers: what the control side allocates is little, so a
// collection may wait until the heap is five times as large as what lives, as long as there is memory. GOGC and
// GOMEMLIMIT have the last word.
func tuneRuntime(workers int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(400)
	}
	var info unix.Sysinfo_t
	if os.Getenv("GOMEMLIMIT") == "" && unix.Sysinfo(&info) == nil {
		debug.SetMemoryLimit(int64(info.Totalram) * int64(info.Unit) / 2)
	}
	// A worker never gives up its processor of its own accord while there is traffic: the rest needs others.
	const others = 2
	if want := workers + others; runtime.GOMAXPROCS(0) < want {
		runtime.GOMAXPROCS(want)
	}
}

func checkCommand() *cobra.Command {
	var file string
	cmd := command("check", "read a configuration and say what is wrong with it", noArgs, func(cmd *cobra.Command, _ []string) error {
		own, err := config.Load(file)
		if err != nil {
			return errors.Join(err, checkAnalytics(config.AnalyticsOf(file)))
		}
		c, serial, err := node.WithKept(own)
		if err != nil {
			return fmt.Errorf("the fleet's configuration %d, which this node has kept, does not fit:\n%w", serial, err)
		}
		more, err := node.CheckIKE(c)
		if err := errors.Join(err, node.CheckCluster(c), checkAnalytics(c.Analytics)); err != nil {
			return err
		}
		for _, w := range append(c.Warnings(), more...) {
			fmt.Fprintln(cmd.ErrOrStderr(), w, "(warning)")
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s: good: %s, %s, %s, %s\n", file, count(len(c.Interfaces), "interface"),
			count(len(c.Endpoints), "endpoint"), count(len(c.Tunnels), "tunnel"), count(len(c.EffectiveRoutes()), "route"))
		if serial != 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "accounts, tunnels and routes of the fleet's configuration %d are with it, which this node has kept\n", serial)
		}
		return nil
	})
	return configFlag(cmd, &file, defaultConfig)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
