package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/sallyport-proxy/sallyport/identity"
	"github.com/sallyport-proxy/sallyport/internal/observe"
	"github.com/sallyport-proxy/sallyport/store"
)

func orgsCommand(c *console) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "orgs",
		Short: "List and forget what directories say of organizations",
		Long: "List and forget what administrators have had read of their organizations (`directory` of a\n" +
			"provider), through the store of the configuration: beside running processes. Of the\n" +
			"configuration's secrets only the address of the store is read.",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cmd.SetOut(c.stderr)
			_ = cmd.Help()
			return silentError{usage("no command")}
		},
	}
	cmd.AddCommand(listOrgsCommand(c), forgetOrgCommand(c))
	return cmd
}

func listOrgsCommand(c *console) *cobra.Command {
	var path, format string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List what is known of organizations",
		Long: "List what directories said of organizations, when it was read and by whom, in the order\n" +
			"of their ids. An organization that is not listed has the name that sign-ins tell.",
		Example: "  sallyport orgs list -c config.yaml --format json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return listOrgs(cmd.Context(), c, path, format) },
	}
	configFlag(cmd, &path)
	cmd.Flags().StringVar(&format, "format", "table", "table or json")
	return cmd
}

const orgsWithoutStore = "nothing that a directory says of an organization is kept"

func listOrgs(ctx context.Context, c *console, path, format string) error {
	print, ok := map[string]func(io.Writer, []identity.OrgDetails) error{"table": orgTable, "json": orgJSON}[format]
	if !ok {
		return usage("--format is table or json, not %q", format)
	}
	cfg, err := withStore(c, path, orgsWithoutStore)
	if err != nil {
		return err
	}
	s, err := openBriefly(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	list, err := s.OrgsDetails(ctx)
	if err != nil {
		return err
	}
	return print(c.stdout, list)
}

func orgTable(w io.Writer, list []identity.OrgDetails) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "ORG\tNAME\tDOMAIN\tCUSTOMER\tREAD\tBY")
	for _, d := range list {
		fmt.Fprintln(t, strings.Join([]string{cell(d.OrgID), cell(d.Name), cell(d.Domain), cell(d.CustomerID),
			rfc3339(d.ReadAt), cell(d.ReadBy)}, "\t"))
	}
	return t.Flush()
}

// listedOrg is an interface: docs/providers/google.md has it.
type listedOrg struct {
	Org      string `json:"org"`
	Name     string `json:"name"`
	Domain   string `json:"domain"`
	Customer string `json:"customer"`
	Read     string `json:"read"`
	By       string `json:"by"`
}

func orgJSON(w io.Writer, list []identity.OrgDetails) error {
	out := struct {
		Orgs []listedOrg `json:"orgs"`
	}{[]listedOrg{}}
	for _, d := range list {
		out.Orgs = append(out.Orgs, listedOrg{Org: d.OrgID, Name: d.Name, Domain: d.Domain, Customer: d.CustomerID,
			Read: rfc3339(d.ReadAt), By: d.ReadBy})
	}
	return writeJSON(w, out)
}

func forgetOrgCommand(c *console) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "forget ORG",
		Short: "Forget what a directory said of an organization",
		Long: "Forget what a directory said of an organization, by its id. Who signs in from then on has\n" +
			"the name again that sign-ins tell; sessions keep what they have. An administrator may\n" +
			"have it read anew, also as that of another customer. With log.audit there is a line in\n" +
			"the audit stream, with your user name.",
		Example: "  sallyport orgs forget -c config.yaml google:acme.example",
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] == "" {
				return usage("orgs forget needs the id of one organization, such as google:acme.example")
			}
			return forgetOrg(cmd.Context(), c, path, args[0])
		},
	}
	configFlag(cmd, &path)
	return cmd
}

func forgetOrg(ctx context.Context, c *console, path, id string) error {
	cfg, err := withStore(c, path, orgsWithoutStore)
	if err != nil {
		return err
	}
	s, err := openBriefly(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	record, err := briefAudit(c, cfg)
	if err != nil {
		return err
	}
	was, err := s.ForgetOrg(ctx, id)
	if errors.Is(err, store.ErrNoOrg) {
		return usage("nothing is kept of %q: `sallyport orgs list` shows of which organizations something is", id)
	}
	if err != nil {
		return err
	}
	what := fmt.Sprintf("what a directory said of %s: customer %s, named %q", was.OrgID, was.CustomerID, was.Name)
	if _, err := fmt.Fprintf(c.stdout, "forgotten: %s\n", what); err != nil {
		return err
	}
	return record(func(a *observe.Audit) { a.Operator(operator(c.env), "forgot "+what) })
}
