/** Which dialog stands over the page: one at most. */

export type Dialog =
  | { readonly kind: "settings" | "help" }
  | { readonly kind: "recommend"; readonly code?: string; readonly name?: string }
  | { readonly kind: "withdraw"; readonly account: string; readonly code: string; readonly name: string };

class Dialogs {
  open = $state.raw<Dialog | null>(null);

  show(dialog: Dialog): void {
    this.open = dialog;
  }

  close(): void {
    this.open = null;
  }
}

export const dialogs = new Dialogs();
