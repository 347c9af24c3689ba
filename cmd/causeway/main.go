// Command causeway is the daemon of an anycast tunnel node, and its operator's command line.
//
//	causeway run -c FILE        forwards packets until it is told to stop
//	causeway check -c FILE      says what is wrong with a configuration
//	causeway show tunnels|routes|neighbours|workers|drops|ports|sas|ike|nodes|cluster|fleet|status
//	causeway apply -f FILE      makes accounts, tunnels and routes what all nodes of a cluster work with
//	causeway ike initiate|rekey|terminate TUNNEL
//	causeway reload             makes the running daemon read its configuration again
//	causeway rebalance          has flows go where the weights of routes say
//	causeway drain              withdraws the endpoints, waits for traffic to leave, and stops the daemon
//	causeway doctor [-c FILE]   says what is fast on this machine, what is not, and why
//	causeway capture -w FILE    writes packets of the running daemon to a pcapng file, with what became of them
//	causeway trace              prints the way of packets through the running daemon
//	causeway replay -c FILE IN  says what the node would do with the frames of a capture
//	causeway version
//
// Exit status: 0 good, 1 failed, 2 wrong use.
package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
)

// Exit statuses: a contract with scripts.
const (
	exitFailed   = 1
	exitWrongUse = 2
)

func main() {
	called, err := newRoot().ExecuteC()
	if err == nil {
		return
	}
	var f failure
	if errors.As(err, &f) {
		if f.err != nil {
			fmt.Fprintln(os.Stderr, f.err)
		}
		os.Exit(exitFailed)
	}
	fmt.Fprintf(os.Stderr, "causeway: %v\nrun `%s --help` for usage\n", err, called.CommandPath())
	os.Exit(exitWrongUse)
}

// failure is the error of a command that was used rightly and could not do what it was asked for; all other errors
// are cobra's about how it was called. A nil err says that everything is printed already.
type failure struct{ err error }

func (f failure) Error() string { return fmt.Sprint(f.err) }

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "causeway",
		Short:         "anycast tunnel endpoint over AF_XDP",
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return noSuchCommand(cmd, args[0])
			}
			return errors.New("a command is missing")
		},
	}
	root.SetFlagErrorFunc(wrongFlag)
	root.SetVersionTemplate("causeway {{.Version}}\n") // as the command does
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(runCommand(), checkCommand(), showCommand(), reloadCommand(), applyCommand(), drainCommand(), rebalanceCommand(), ikeCommand(), clusterCommand(), doctorCommand(), captureCommand(), traceCommand(), replayCommand(), versionCommand())
	return root
}

// wrongFlag names a command that is none before a flag that only the right one would know.
func wrongFlag(cmd *cobra.Command, err error) error {
	if cmd.HasAvailableSubCommands() && cmd.Flags().NArg() > 0 {
		return noSuchCommand(cmd, cmd.Flags().Arg(0))
	}
	return err
}

func noSuchCommand(cmd *cobra.Command, name string) error {
	return fmt.Errorf("unknown command %q: %s wants one of %s", name, cmd.CommandPath(), subcommands(cmd))
}

func subcommands(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, ", ")
}

// noArgs refuses arguments, and says how the file is named that was perhaps meant.
func noArgs(cmd *cobra.Command, args []string) error {
	switch {
	case len(args) == 0:
		return nil
	case cmd.Flags().Lookup("config") != nil:
		return fmt.Errorf("%s takes no arguments, got %q: a configuration is named by -c %s", cmd.CommandPath(), args[0], args[0])
	}
	return fmt.Errorf("%s takes no arguments, got %q", cmd.CommandPath(), args[0])
}

// command makes a subcommand whose errors are failures.
func command(use, short string, args cobra.PositionalArgs, run func(cmd *cobra.Command, args []string) error) *cobra.Command {
	return &cobra.Command{Use: use, Short: short, Args: args, RunE: func(cmd *cobra.Command, args []string) error {
		err := run(cmd, args)
		if f := (failure{}); err == nil || errors.As(err, &f) {
			return err
		}
		return failure{err}
	}}
}

const defaultConfig = "/etc/causeway/causeway.yaml"

func configFlag(cmd *cobra.Command, file *string, fallback string) *cobra.Command {
	cmd.Flags().StringVarP(file, "config", "c", fallback, "configuration `FILE`")
	return cmd
}

func versionCommand() *cobra.Command {
	return command("version", "print the version", noArgs, func(cmd *cobra.Command, _ []string) error {
		fmt.Fprintln(cmd.OutOrStdout(), "causeway", version())
		return nil
	})
}

// version is what the module or the version control system says of this build.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	v := info.Main.Version
	if v == "" || v == "(devel)" {
		v = "devel"
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				v += "-" + s.Value[:12]
			}
		}
	}
	return v + " " + info.GoVersion
}
