package tenants

import (
	"fmt"
	"strings"
	"unicode"

	"ambit.dev/ambit/notifications"
)

// The mails. Nothing that a stranger typed, such as the name at sign-up, goes into a mail before the address is verified: it would carry
// the stranger's text to the address under our name.

func verifyMail(user User, link string) notifications.Mail {
	return notifications.Mail{Kind: "verify_email", To: user.Email, Subject: "Verify your address for Ambit", Text: fmt.Sprintf(`Hello,

an Ambit account was made with this address. To verify the address, open

%s

and enter the password that you chose. The link holds for two days.

If it was not you, do nothing: the account cannot be used.
`, link)}
}

func resetMail(user User, link string) notifications.Mail {
	return notifications.Mail{Kind: "reset_password", To: user.Email, Subject: "Choose a new password for Ambit", Text: fmt.Sprintf(`Hello,

somebody, most likely you, asked for a new password for the Ambit account with this address, or signed up with it once more. To choose a
password, open

%s

The link holds for an hour, and can be used once. All places where you are signed in will be signed out.

If it was not you, do nothing: the present password stays.
`, link)}
}

func existingMail(user User, publicURL string) notifications.Mail {
	return notifications.Mail{Kind: "account_exists", To: user.Email, Subject: "You have an Ambit account already", Text: fmt.Sprintf(`Hello,

somebody, most likely you, signed up for Ambit with this address, which has an account already. Nothing was changed.

Sign in, or choose "forgot password", at

%s

If it was not you, do nothing.
`, publicURL)}
}

func changedMail(user User, publicURL string) notifications.Mail {
	return notifications.Mail{Kind: "password_changed", To: user.Email, Subject: "Your Ambit password was changed", Text: fmt.Sprintf(`Hello,

the password of your Ambit account was changed, and the other places where you were signed in were signed out.

If it was not you, choose "forgot password" at once, at

%s
`, publicURL)}
}

// invitationMail carries the organisation's name, which its owner typed: tamed, so that nobody sends links or addresses of their own under
// our name by it.
func invitationMail(i Invitation, organization, link string) notifications.Mail {
	organization = tamed(organization)
	return notifications.Mail{Kind: "invitation", To: i.Email, Subject: "You are invited to " + organization + " on Ambit", Text: fmt.Sprintf(`Hello,

you are invited to the organisation "%s" on Ambit, with the role %s. To accept, open

%s

and sign in with the account of this address, or make one. The link holds until %s, and can be used once.

If you did not expect it, do nothing.
`, organization, tamed(i.RoleName), link, i.ExpiresAt.UTC().Format("2 January 2006, 15:04 UTC"))}
}

// tamed leaves of a name what no mail program makes a link of.
func tamed(name string) string {
	runes := []rune(name)
	out := make([]rune, 0, len(runes))
	for i, r := range runes {
		plain := unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune(" -&,'()", r)
		// A point stays where it ends a word, as in "Inc."
		if r == '.' && (i+1 == len(runes) || runes[i+1] == ' ') {
			plain = true
		}
		if !plain {
			r = ' '
		}
		out = append(out, r)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}
